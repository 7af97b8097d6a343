"""Spans of requests: the client's records and what servers noted, joined by the answer's id and the bootstrap room.

What servers note is SGLang's `--export-metrics-to-file`, one JSON object a line and request. Stock SGLang has it, so
every system is looked at in the same way: psserve, its baselines, and anybody's own server. A prefill and a decode
server that worked on one request wrote the same bootstrap room.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson

from psserve.bench.record import PHASES, RequestRecord, Spans

PATIENCE_S = 3.0
"""Servers write their lines beside their answers, so the last ones may come a little later than these."""
TOGETHER = ("router_queue", "prefill_queue", "prefill", "decode")
"""The phases on a server that reads prompts and writes answers."""


def with_spans(records: Sequence[RequestRecord], directory: Path, started: float) -> list[RequestRecord]:
    """`records` of a run that began at `started` (seconds since 1970), with spans where the servers told."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        joined = join(records, read_exports(directory, since=started), started)
        missing = any(record.error is None and not record.spans for record in joined)
        if not missing or time.monotonic() > deadline:
            return joined
        time.sleep(0.2)


def join(records: Iterable[RequestRecord], notes: Iterable[ServerNote], started: float) -> list[RequestRecord]:
    """`records` with the spans that follow from `notes`; those of requests that nobody noted stay as they are."""
    by_id: dict[str, ServerNote] = {}
    rooms: dict[int, list[ServerNote]] = defaultdict(list)
    for note in sorted(notes, key=lambda note: note.started):
        by_id[note.request_id] = note  # of a pair that shares the id: the one that started last, the decode server
        if note.room is not None:
            rooms[note.room].append(note)
    joined = []
    for record in records:
        last = by_id.get(record.answer_id or "")
        spans = _spans(record, last, rooms, started) if last is not None else {}
        joined.append(replace(record, spans=dict(spans)) if spans else record)
    return joined


def _spans(record: RequestRecord, last: ServerNote, rooms: dict[int, list[ServerNote]], started: float) -> Spans:
    """{} where one of the two servers has told nothing."""
    if last.room is None:
        return (
            {}
            if last.prefilled is None
            else _between(TOGETHER, record, [last.received, last.started, last.prefilled], started)
        )
    pair = rooms[last.room]
    if len(pair) != 2 or (prefill := pair[0]).prefilled is None:
        return {}
    ends = [prefill.received, prefill.started, prefill.prefilled, last.queued, last.started]
    return _between(tuple(PHASES), record, ends, started)


def _between(phases: Sequence[str], record: RequestRecord, ends: Sequence[float], started: float) -> Spans:
    """Spans from the request's sending to its end, without gaps. Clocks of two processes differ by a hair: none is
    negative."""
    edges = [record.sent_s]
    for end in (*(end - started for end in ends), record.done_s):
        edges.append(min(max(end, edges[-1]), record.done_s))
    return dict(zip(phases, pairwise(edges), strict=True))


EXPORT_FILES = "sglang-request-metrics-*.log"


def export_args(directory: Path) -> tuple[str, ...]:
    """SGLang's arguments for it. Several servers may share a directory.

    Requests are logged at the lowest level, too: only then do the exported lines leave the prompts out, and short lines
    are written whole.
    """
    return (
        *("--export-metrics-to-file", "--export-metrics-to-file-dir", str(directory)),
        *("--log-requests", "--log-requests-level", "0"),
    )


@dataclass(frozen=True)
class ServerNote:
    """One request on one server. Times are seconds since 1970."""

    request_id: str
    room: int | None
    """Pairs a prefill and a decode server; None on a server that does both."""
    received: float
    queued: float
    """It could have been computed: on a decode server, its KV was there."""
    started: float
    prefilled: float | None
    """Its prompt was read; a decode server reads none."""
    finished: float


def read_exports(directory: Path, since: float = 0.0) -> list[ServerNote]:
    """The requests that finished after `since` (seconds since 1970), as far as they are whole."""
    notes = (note for path in sorted(directory.rglob(EXPORT_FILES)) for note in _notes(path))
    return [note for note in notes if note.finished >= since]


def _notes(path: Path) -> Iterator[ServerNote]:
    for line in path.read_bytes().splitlines():
        try:
            yield _note(orjson.loads(line))
        except (orjson.JSONDecodeError, KeyError, TypeError):
            # Aborted requests have no times, and the last line may still be being written.
            continue


def _note(line: dict[str, Any]) -> ServerNote:
    """Raises KeyError for a request without times, TypeError for a line that is no such object."""
    parameters = orjson.loads(line["request_parameters"])
    started = line["forward_entry_time"]
    return ServerNote(
        request_id=line["id"],
        room=parameters.get("bootstrap_room"),
        received=line["request_received_ts"],
        queued=started - line["queue_time"],
        started=started,
        prefilled=line.get("prefill_finished_time"),
        finished=line["request_finished_ts"],
    )
