"""What one key may have: requests and tokens a minute, and requests at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from psserve.api_keys import ApiKey
from psserve.errors import RequestError

MINUTE_S = 60.0


class Bucket:
    """So much a minute, all of which may be taken at once. It can be overdrawn, and is then empty for longer."""

    def __init__(self, per_minute: int) -> None:
        self.size = per_minute
        self._level = float(per_minute)
        self._when = monotonic()

    @property
    def level(self) -> float:
        """What can be taken now."""
        now = monotonic()
        self._level = min(self.size, self._level + (now - self._when) * self.size / MINUTE_S)
        self._when = now
        return self._level

    def take(self, amount: int) -> None:
        self._level = self.level - amount

    def seconds_until(self, level: float) -> float:
        return max(0.0, (level - self.level) * MINUTE_S / self.size)


class Rates:
    """Of one key, in one router."""

    def __init__(self, key: ApiKey) -> None:
        self._buckets = {
            what: Bucket(limit)
            for what, limit in (("requests", key.requests_per_minute), ("tokens", key.tokens_per_minute))
            if limit is not None
        }
        self._concurrent = key.concurrent_requests
        self._running = 0

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """One request runs meanwhile. Raises RequestError (429) if the key has had its share."""
        for what, bucket in self._buckets.items():
            if bucket.level < 1:
                message = f"this key may use {bucket.size} {what} a minute"
                raise _too_much(message, math.ceil(bucket.seconds_until(1)))
        if self._concurrent is not None and self._running >= self._concurrent:
            raise _too_much(f"this key may have {self._concurrent} requests at a time", 1)
        if "requests" in self._buckets:
            self._buckets["requests"].take(1)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def spend(self, tokens: int) -> None:
        """A request has used so many: known only at its end, so they are taken then."""
        if "tokens" in self._buckets:
            self._buckets["tokens"].take(tokens)

    def headers(self) -> dict[str, str]:
        """OpenAI's headers about what is left."""
        headers = {}
        for what, bucket in self._buckets.items():
            headers[f"x-ratelimit-limit-{what}"] = str(bucket.size)
            headers[f"x-ratelimit-remaining-{what}"] = str(max(0, math.floor(bucket.level)))
            headers[f"x-ratelimit-reset-{what}"] = f"{math.ceil(bucket.seconds_until(bucket.size))}s"
        return headers


def _too_much(message: str, wait_s: int) -> RequestError:
    return RequestError(429, message, type="rate_limit_error", code="rate_limit_exceeded", retry_after=max(1, wait_s))
