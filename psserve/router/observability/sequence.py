"""What became of one sequence on its pair of workers: which they were, tokens, and when which leg was where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from psserve.router.observability.spans import UNTRACED, LegSpan

UNFINISHED = b'"finish_reason":null'
"""Is in every event that carries output and is not the last; in none of those that close a stream."""


@dataclass
class SequenceRecord:
    """Times are monotonic seconds."""

    is_first: bool
    """The first, or only, choice of its prompt."""
    started: float
    """The legs were sent."""
    prefill: str = "-"
    """Name of the prefill worker."""
    decode: str = "-"
    """Name of the decode worker."""
    outcomes: tuple[str, str] | None = None
    """Why routing chose these two; None: it did not."""
    attempt: int = 1
    """Which one of the sequence this is."""
    answered: float = 0.0
    """The slower leg had answered."""
    prefilled: float = 0.0
    """The prefill leg had answered: the base has computed the prompt and its KV is delivered."""
    prompt_tokens: int = 0
    """That the base computed or had cached: all but the prompt's last."""
    shared_tokens: int = 0
    """Of these, cached ones that the base had computed for another module (see shared_prefix.py)."""
    decode_cached_tokens: int = 0
    """Of these, ones whose KV the decode worker had itself."""
    output_tokens: int = 0
    first_output: float | None = None
    """When the first output of a stream came, or the whole of an answer that is not streamed."""
    last_output: float | None = None
    decode_span: LegSpan = UNTRACED
    on_gap: Callable[[float], object] | None = None
    """Is told the seconds between one arrival of a stream's output and the next."""

    def whole(self) -> None:
        """The answer, which is not streamed, came."""
        self.first_output = self.last_output = monotonic()

    def arrived(self, data: bytes) -> None:
        """`data` of the answer's stream came."""
        now = monotonic()
        if self.first_output is None:
            self.first_output = now
        elif self.last_output is not None and self.on_gap is not None and UNFINISHED in data:
            self.on_gap(now - self.last_output)
        self.last_output = now

    def end_span(self, error: BaseException | None = None) -> None:
        """The decode leg is over."""
        self.decode_span.end(error, {"first output": self.first_output, "last output": self.last_output})

    @property
    def transferred_tokens(self) -> int:
        """Tokens whose KV went from the prefill to the decode worker."""
        return max(0, self.prompt_tokens - self.decode_cached_tokens)

    @property
    def seconds_per_token(self) -> float | None:
        """Of the output after its first token; None where that is not known, or there is no second token."""
        if self.first_output is None or self.last_output is None or self.last_output == self.first_output:
            return None
        return (self.last_output - self.first_output) / (self.output_tokens - 1) if self.output_tokens > 1 else None
