"""What the records of measured runs tell of single pieces of work that had the machine to themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from psserve.bench.record import RequestRecord, seconds_per_token


@dataclass
class Samples:
    """Rows of the cost model's terms, and the seconds that each took."""

    prefill: list[tuple[tuple[float, ...], float]] = field(default_factory=list)
    decode: list[tuple[tuple[float, ...], float]] = field(default_factory=list)
    transfer: list[tuple[tuple[float, ...], float]] = field(default_factory=list)
    router: list[float] = field(default_factory=list)
    longest: int = 0
    """Tokens of prompt and answer together."""

    def add(self, system: str, records: Sequence[RequestRecord]) -> None:
        """The records of one run. A request that overlaps another one tells nothing: who had the machine is unknown."""
        known: dict[tuple[str, str], int] = {}
        ordered = sorted(records, key=lambda record: record.sent_s)
        busy_until = 0.0
        for record, following in zip(ordered, [*ordered[1:], None], strict=True):
            alone = busy_until <= record.sent_s and (following is None or record.done_s <= following.sent_s)
            busy_until = max(busy_until, record.done_s)
            if record.error is None and record.first_s is not None:
                if alone and not record.warmup:
                    self._add(system, record, known.get((record.session, record.module), 0))
                known[record.session, record.module] = record.prompt_tokens

    def _add(self, system: str, record: RequestRecord, known: int) -> None:
        """`known`: tokens of the prompt that its module's decode server has from before."""
        assert record.first_s is not None
        new, spans = record.prompt_tokens - record.cached_tokens, record.spans
        begin, end = spans.get("prefill", (record.sent_s, record.first_s))
        self._sample(self.prefill, (1, new, new * (new + 2 * record.cached_tokens)), end - begin)
        self._add_decode(system, record)
        if "transfer" in spans:
            begin, end = spans["transfer"]
            self._sample(self.transfer, (1, record.prompt_tokens - known), end - begin)
        if "router_queue" in spans:
            queued = spans.get("prefill_queue", spans["router_queue"])
            self.router.append(queued[1] - spans["router_queue"][0])
        self.longest = max(self.longest, record.prompt_tokens + record.output_tokens)

    def _add_decode(self, system: str, record: RequestRecord) -> None:
        """By the servers' times, if known: pieces of a short answer reach the client together, and say nothing."""
        context = record.prompt_tokens + record.output_tokens / 2
        if "decode" in record.spans:
            steps = record.output_tokens - (system != "shared")  # stock SGLang has the first token of the prefill
            begin, end = record.spans["decode"]
            self._sample(self.decode, (1, steps, steps * context), end - begin)
        elif (step := seconds_per_token(record)) is not None:
            self._sample(self.decode, (0, 1, context), step)

    def _sample(self, to: list[tuple[tuple[float, ...], float]], row: tuple[float, ...], seconds: float) -> None:
        if seconds > 0:
            to.append((row, seconds))
