"""What servers have to do and to hold, in requests and tokens, and whether they have the capacity for one more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from psserve.contracts.limits import QueueLimits
from psserve.router.policies import Prompt

FIRST_TOKENS = 1024
"""Reckoned with for a module's first answer."""
FIRST_PART = 8
"""In a small pool such a part of it, SGLang's own reserve for a request: or nobody would run beside the first."""
LEAST_FIRST_TOKENS = 128
"""In however small a pool."""
OUTPUT_MARGIN = 2.0
REMEMBERED_ANSWERS = 32
"""About so many answers are remembered."""


class OutputLengths:
    """Running mean of the tokens that a module's answers had, where the first guess counts for one answer."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}
        self._answers: Counter[str] = Counter()

    def expected(self, module: str, limit: int, pool: int | None = None) -> int:
        """Tokens to reckon with, of the `limit` that a request asks for: OUTPUT_MARGIN times the mean.

        `pool`: tokens of the one that the answer goes to; None: not known.
        """
        first = FIRST_TOKENS if pool is None else min(FIRST_TOKENS, max(pool // FIRST_PART, LEAST_FIRST_TOKENS))
        learnt, answers = OUTPUT_MARGIN * self._means.get(module, 0.0), self._answers[module]
        return min(limit, round(learnt + (first - learnt) / (answers + 1)))

    def learn(self, module: str, tokens: float) -> None:
        """Take note of how many tokens an answer of `module` had."""
        self._answers[module] += 1
        mean = self._means.get(module, 0.0)
        self._means[module] = mean + (tokens - mean) / min(self._answers[module], REMEMBERED_ANSWERS)


STRIDE = 8
"""Blocks of a prompt are counted by so many at a time: a long one has hundreds. The rest counts as not shared."""
SPARE_RUNNING = 4
"""Requests sent beyond what a decode server runs at a time, so that the next is there when one ends."""


@dataclass
class PrefillWindow:
    """One prefill server's window: what it was sent and has not computed yet."""

    limits: QueueLimits
    requests: int = 0
    tokens: int = 0
    """Tokens that are not cached there, as far as the policy knows."""
    by_module: Counter[str] = field(default_factory=Counter)

    def takes(self, module: str) -> bool:
        """A module whose decode servers hang must leave some for the others, so half is the most that it gets."""
        return (
            self.requests < self.limits.window_requests
            and self.tokens < self.limits.window_tokens
            and self.by_module[module] < self.limits.window_requests // 2
        )

    def add(self, module: str, tokens: int) -> None:
        self.requests += 1
        self.tokens += tokens
        self.by_module[module] += 1

    def remove(self, module: str, tokens: int) -> None:
        self.requests -= 1
        self.tokens -= tokens
        self.by_module[module] -= 1


class KvBudget:
    """One server's KV pool, as far as the requests in flight take it up.

    Prompts that begin alike share their KV, so blocks are counted once however many requests have them.
    """

    def __init__(self, kv_tokens: int | None, max_running: int | None) -> None:
        """What the server holds and runs at a time; None: not known, no limit."""
        self._kv_tokens = kv_tokens
        self._most = None if max_running is None else max_running + max(SPARE_RUNNING, max_running // 4)
        self._strides: Counter[int] = Counter()
        self._stride_tokens = 0.0  # of one
        self._unshared = 0  # tokens of answers, and of prompts beyond their last whole stride
        self.requests = 0

    @property
    def pool(self) -> int | None:
        """Tokens that the server holds; None: not known, no limit."""
        return self._kv_tokens

    @property
    def tokens(self) -> int:
        """KV that the requests in flight take up, expected answers included."""
        return round(len(self._strides) * self._stride_tokens) + self._unshared

    def takes(self, prompt: Prompt, output_tokens: int) -> bool:
        """Whether a request fits. One that is larger than the pool is sent when nothing else is there."""
        if not self.requests:
            return True
        if self._most is not None and self.requests >= self._most:
            return False
        if self._kv_tokens is None:
            return True
        strides = _strides(prompt)
        new = len(strides) - self._shared(strides)
        shared = (len(self._strides) + new) * STRIDE * prompt.block_tokens
        return shared + self._unshared + unshared_tokens(prompt, output_tokens) <= self._kv_tokens

    def add(self, prompt: Prompt, unshared: int) -> None:
        """A request with this prompt; `unshared`: see unshared_tokens."""
        self.requests += 1
        self._unshared += unshared
        self._stride_tokens = STRIDE * prompt.block_tokens
        self._strides.update(_strides(prompt))

    def remove(self, prompt: Prompt, unshared: int) -> None:
        """The request that was added with these is over."""
        self.requests -= 1
        self._unshared -= unshared
        counts = self._strides
        for stride in _strides(prompt):
            if counts[stride] == 1:
                del counts[stride]
            else:
                counts[stride] -= 1

    def _shared(self, strides: Sequence[int]) -> int:
        """Leading ones that are there: names are chained, so none after the first that is not."""
        return sum(1 for _ in takewhile(self._strides.__contains__, strides))


@dataclass(frozen=True)
class Hold:
    """What a sequence takes up of one server's KV pool until it has ended."""

    budget: KvBudget
    prompt: Prompt
    output_tokens: int

    def begin(self) -> None:
        self.budget.add(self.prompt, unshared_tokens(self.prompt, self.output_tokens))

    def end(self) -> None:
        self.budget.remove(self.prompt, unshared_tokens(self.prompt, self.output_tokens))


def unshared_tokens(prompt: Prompt, output_tokens: int) -> int:
    """Tokens of a request that no other can share: its answer, and the end of its prompt."""
    whole = len(prompt.blocks) // STRIDE * STRIDE
    return output_tokens + max(0, prompt.tokens - prompt.tokens_of(whole))


def _strides(prompt: Prompt) -> tuple[int, ...]:
    """The last block of each whole stride names all before it too."""
    return prompt.blocks[STRIDE - 1 :: STRIDE]
