"""Spans of requests: the client's records and what servers noted, joined by the answer's id and the bootstrap room."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from psserve.bench.record import RequestRecord
from psserve.bench.trace.exports import ServerNote, read_exports
from psserve.bench.trace.phases import PHASES, Spans

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
