"""What SGLang's servers write down of each request: `--export-metrics-to-file`, one JSON object a line.

Stock SGLang has it, so every system is looked at in the same way: psserve, its baselines, and anybody's own server.
A prefill and a decode server that worked on one request wrote the same bootstrap room.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

FILES = "sglang-request-metrics-*.log"


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
    notes = (note for path in sorted(directory.rglob(FILES)) for note in _notes(path))
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
