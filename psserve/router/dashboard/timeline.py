"""The last five minutes in buckets of five seconds: counts that only move forward, in memory that does not grow."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

BUCKET_S = 5
BUCKETS = 60
KEPT_TTFTS = 64
"""Of one bucket; with more requests, a random choice of them."""

Pair = tuple[str, str]
"""Names of a prefill and a decode worker."""


@dataclass
class Flow:
    """Tokens that went through one pair of workers. Output is spread over the time it took: it comes in fractions."""

    prompt_tokens: int = 0
    output_tokens: float = 0.0


@dataclass
class Bucket:
    """What ended, or was generated, in five seconds."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of these, prompt tokens whose KV the base had."""
    shared_tokens: int = 0
    """Of these again, those that it had computed for another module."""
    decode_cached_tokens: int = 0
    """Of the prompt tokens, those that the decode worker had itself, so that they needed no transfer."""
    errors: Counter[str] = field(default_factory=Counter)
    flows: defaultdict[Pair, Flow] = field(default_factory=lambda: defaultdict(Flow))
    ttfts: list[float] = field(default_factory=list)
    """Seconds, in no order."""
    _ttfts_seen: int = 0

    @property
    def output_tokens(self) -> float:
        return sum(flow.output_tokens for flow in self.flows.values())

    def add_ttft(self, seconds: float) -> None:
        """Keep it, or a fair choice among those of this bucket (reservoir sampling)."""
        self._ttfts_seen += 1
        if len(self.ttfts) < KEPT_TTFTS:
            self.ttfts.append(seconds)
        elif (place := random.randrange(self._ttfts_seen)) < KEPT_TTFTS:
            self.ttfts[place] = seconds


class Timeline:
    """Buckets by number: monotonic seconds divided by BUCKET_S. Only those in which something happened exist."""

    def __init__(self) -> None:
        self._buckets: dict[int, Bucket] = {}

    def at(self, when: float) -> Bucket:
        """The bucket of `when` (monotonic seconds). Makes room for it by dropping what is older than BUCKETS."""
        number = int(when // BUCKET_S)
        if number not in self._buckets:
            for old in [other for other in self._buckets if other <= number - BUCKETS]:
                del self._buckets[old]
            self._buckets[number] = Bucket()
        return self._buckets[number]

    def spread_output(self, pair: Pair, tokens: float, since: float, until: float) -> None:
        """Count output tokens that were generated evenly from `since` to `until`, as far back as buckets go."""
        if tokens <= 0:
            return
        took = until - since
        since = max(since, until - (BUCKETS - 1) * BUCKET_S)
        while since < until:
            end = min((since // BUCKET_S + 1) * BUCKET_S, until)
            self.at(since).flows[pair].output_tokens += tokens * (end - since) / took
            since = end

    def last(self, now: float, count: int = BUCKETS) -> Iterator[Bucket]:
        """The bucket of `now` and those before it, oldest first; an empty one where nothing happened."""
        newest = int(now // BUCKET_S)
        return (self._buckets.get(number) or Bucket() for number in range(newest - count + 1, newest + 1))
