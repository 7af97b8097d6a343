"""What the dashboard remembers of requests: those in flight, the last ones that ended, and sums over five minutes.

Nothing of it is text of a client's but the request id. It costs a few additions a request, seen or not.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from psserve.router.observability.exchange import Exchange

BUCKET_S = 5
BUCKETS = 60
KEPT_TTFTS = 64
"""Most that are kept of one bucket; with more requests, a random choice of them."""

WorkerPair = tuple[str, str]
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
    """Those of the prompt tokens whose KV the base had."""
    shared_tokens: int = 0
    """Those of the cached ones that it had computed for another module."""
    decode_cached_tokens: int = 0
    """Those of the prompt tokens that the decode worker had itself, so that they needed no transfer."""
    errors: Counter[str] = field(default_factory=Counter)
    flows: defaultdict[WorkerPair, Flow] = field(default_factory=lambda: defaultdict(Flow))
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

    def spread_output(self, pair: WorkerPair, tokens: float, since: float, until: float) -> None:
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


KEPT_REQUESTS = 24


@dataclass
class _Running:
    """A request in flight, and how much of its output is on the timeline already."""

    exchange: Exchange
    counted: int = 0
    until: float | None = None


@dataclass(frozen=True)
class Ended:
    """A request that is over. `code`: HTTP status, or the code of an error inside a stream."""

    exchange: Exchange
    code: str
    when: float
    """Monotonic seconds."""


class Activity:
    """The activity of one router."""

    def __init__(self) -> None:
        self.boot = uuid.uuid4().hex
        """A name that each start makes anew: who sees it change knows that counting began again."""
        self.since = monotonic()
        self.timeline = Timeline()
        self.ended: deque[Ended] = deque(maxlen=KEPT_REQUESTS)
        self._running: dict[int, _Running] = {}

    @property
    def running(self) -> list[Exchange]:
        """Requests in flight, the longest first."""
        return [running.exchange for running in self._running.values()]

    @contextmanager
    def follow(self, exchange: Exchange) -> Iterator[None]:
        """A request is generated meanwhile."""
        running = self._running[id(exchange)] = _Running(exchange)
        try:
            yield
        finally:
            del self._running[id(exchange)]
            self._count_output(running, _output_tokens(exchange), monotonic())

    def catch_up(self, now: float) -> None:
        """Put on the timeline what requests in flight have streamed since the last time."""
        for running in self._running.values():
            self._count_output(running, running.exchange.streamed_events, now)

    def end(self, exchange: Exchange, code: str, now: float) -> None:
        """A request to generate is over."""
        self.ended.append(Ended(exchange, code, now))
        bucket = self.timeline.at(now)
        bucket.requests += 1
        if not code.startswith("2"):
            bucket.errors[code] += 1
        if exchange.first_byte is not None:
            bucket.add_ttft(exchange.first_byte - exchange.started)
        if (usage := exchange.usage) is None:
            return
        bucket.prompt_tokens += usage["prompt_tokens"]
        bucket.cached_tokens += usage["prompt_tokens_details"]["cached_tokens"]
        bucket.shared_tokens += exchange.shared_tokens
        bucket.decode_cached_tokens += sum(one.decode_cached_tokens for one in exchange.sequences if one.is_first)
        if (pair := pair_of(exchange)) is not None:
            bucket.flows[pair].prompt_tokens += usage["prompt_tokens"]

    def _count_output(self, running: _Running, tokens: int, now: float) -> None:
        if (pair := pair_of(running.exchange)) is None or tokens <= running.counted:
            return
        since = running.until or running.exchange.first_byte or running.exchange.started
        self.timeline.spread_output(pair, tokens - running.counted, since, now)
        running.counted, running.until = tokens, now


def pair_of(exchange: Exchange) -> WorkerPair | None:
    """The workers of a request; None before they have answered."""
    if exchange.prefill is None or exchange.decode is None:
        return None
    return exchange.prefill, exchange.decode


def _output_tokens(exchange: Exchange) -> int:
    """The output of an answer that is over; one that broke off has no usage, but as many tokens as events."""
    return exchange.usage["completion_tokens"] if exchange.usage is not None else exchange.streamed_events
