"""What became of each request of a run: written by load generator and simulator alike, read by metrics and reports.

A record, the phases that its spans may tell of, and the file in which a run's records are kept: a first line that says
what ran, then one request a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from psserve.errors import BenchError

INTERRUPTED = "interrupted"
"""The `error` of a request that the user's Ctrl-C ended, or kept from being sent."""


@dataclass(frozen=True)
class RequestRecord:
    """One request. Times are seconds since the start of the run."""

    session: str
    step: int
    call: int
    """Which of the step's calls."""
    module: str
    due_s: float
    """When the workload wanted it sent; later than that by more than a little, the client was the bottleneck."""
    sent_s: float
    first_s: float | None
    """When the first token came; None if none did."""
    done_s: float
    chunk_s: tuple[float, ...] = ()
    """When each streamed piece came, the first one included. A piece may carry several tokens."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt, what the prefill side found in its cache."""
    output_tokens: int = 0
    asked_tokens: int | None = None
    """How many output tokens the workload wanted, where that was said; another number is other work."""
    error: str | None = None
    warmup: bool = False
    """Not counted."""
    arrived_s: float | None = None
    """When the session arrived: on its first requests, where it may have had to wait for its turn."""
    request_id: str | None = None
    """As the client called it: psserve's log has it."""
    answer_id: str | None = None
    """As the server that wrote the answer called it."""
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Begin and end of `router_queue`, `prefill_queue`, `prefill`, `transfer`, `decode_queue`, `decode`, if known."""


def seconds_per_token(record: RequestRecord) -> float | None:
    """TPOT as bench_serving defines it: (latency - TTFT) / (output tokens - 1); None without a second token."""
    if record.first_s is None or record.output_tokens < 2:
        return None
    return (record.done_s - record.first_s) / (record.output_tokens - 1)


Spans = Mapping[str, tuple[float, float]]
"""Phase -> its begin and end, in seconds since the start of the run."""
PHASES = {
    "router_queue": "client to server: the router, its queue, HTTP",
    "prefill_queue": "prefill server: tokenising, waiting for KV and for its turn",
    "prefill": "prefill: the prompt is read",
    "transfer": "KV transfer, until the decode server has it",
    "decode_queue": "decode server: waiting for its turn",
    "decode": "decode: the answer is written",
}
HANDOFF = ("transfer", "decode_queue")
"""What exists only because prompt and answer are computed by two servers."""


def mean_seconds(records: Iterable[RequestRecord]) -> dict[str, float]:
    """Seconds a request spent in each phase, over the counted requests whose spans are known; {} if none are."""
    known = [record.spans for record in records if record.spans and not record.warmup]
    return {
        phase: sum(end - begin for spans in known for begin, end in [spans.get(phase, (0.0, 0.0))]) / len(known)
        for phase in PHASES
        if any(phase in spans for spans in known)
    }


def handoff_share(seconds: Mapping[str, float]) -> float | None:
    """The handoff's part of all time; None where nothing is known."""
    whole = sum(seconds.values())
    return sum(seconds.get(phase, 0.0) for phase in HANDOFF) / whole if whole else None


@dataclass(frozen=True)
class RunHeader:
    """What ran, in the file's first line."""

    run: str
    """The run's name, as on its result line."""
    system: str
    started: float
    """Seconds since 1970: what the requests' times count from."""
    simulated: bool = False


def write_records(path: Path, header: RunHeader, records: Iterable[RequestRecord]) -> None:
    """Write the file, and its folder where there is none."""
    encode = msgspec.json.Encoder().encode
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(encode(header) + b"\n")
        for record in records:
            file.write(encode(record) + b"\n")


def read_records(path: Path) -> tuple[RunHeader, list[RequestRecord]]:
    """The file's contents. Raises BenchError for one that is no such file, naming file and line."""
    lines = path.read_bytes().splitlines()
    header = _read(lines[0] if lines else b"", RunHeader, path, 1)
    return header, [_read(line, RequestRecord, path, number) for number, line in enumerate(lines[1:], start=2)]


_Line = TypeVar("_Line")


def _read(line: bytes, kind: type[_Line], path: Path, number: int) -> _Line:
    try:
        return msgspec.json.decode(line, type=kind)
    except msgspec.DecodeError as error:
        raise BenchError(f"{path}, line {number}: not the requests of a run: {error}") from None
