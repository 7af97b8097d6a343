"""What became of one request: written by the load generator and by the simulator alike, read by metrics and reports."""

from __future__ import annotations

from dataclasses import dataclass, field

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
