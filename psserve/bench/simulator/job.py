"""One request on its way through a simulated system."""

from __future__ import annotations

from dataclasses import dataclass, field

from psserve.bench.record import RequestRecord
from psserve.bench.simulator.pool import Lease, Prefix


@dataclass(eq=False, slots=True)
class Job:
    """What is asked, and what became of it so far. Times are seconds of the simulation."""

    number: int
    """Of its session, from 1 in order of start."""
    session: str
    step: int
    call: int
    module: str
    context: Prefix
    blocks: tuple[int, ...]
    """Names of the prompt's blocks, for policies."""
    prompt_tokens: int
    read_tokens: int
    """Of the prompt, what the prefill side computes or finds in its cache."""
    output_tokens: int
    joins: bool
    """Whether the answer becomes part of the session's context."""
    due_s: float
    sent_s: float
    lease: Lease | None = None
    """On the server that computes the prompt."""
    done_tokens: int = 0
    """Of those to read: found or computed."""
    hit_tokens: int = 0
    last_chunk: int = 0
    """Tokens of the latest prefill batch that were this prompt's; all of them, if it took one batch."""
    decode_lease: Lease | None = None
    first_s: float | None = None
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)

    def record(self, done_s: float, *, warmup: bool) -> RequestRecord:
        """What a load generator would have written."""
        return RequestRecord(
            session=self.session,
            step=self.step,
            call=self.call,
            module=self.module,
            due_s=self.due_s,
            sent_s=self.sent_s,
            first_s=self.first_s,
            done_s=done_s,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.hit_tokens,
            output_tokens=self.output_tokens,
            asked_tokens=self.output_tokens,
            warmup=warmup,
            spans=self.spans,
        )
