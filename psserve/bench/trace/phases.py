"""The phases of a request, in the order in which they happen, each ending where the next one begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from psserve.bench.record import RequestRecord

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
