"""When a sequence that failed before its first byte is tried once more. The only place where anything is retried.

Every attempt has a room and an id of its own, and goes to other workers where there are any.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from time import monotonic

from psserve.router.workers.failures import LegFailure, Reason

MAX_RETRIES = 2
SHARE = 0.1
FLOOR = 5
WINDOW_S = 10.0
BACKOFF_S = 0.05
"""Wait before the first retry; doubled for the second. Half of it to one and a half, by chance."""

RETRIED: frozenset[Reason] = frozenset({"connect", "socket", "stale", "overloaded", "error", "aborted", "adapter"})
"""Failures that say nothing against the request.

Not `refused` and `unhandled` (the client's fault), `malformed` and `split` (a fault that does not pass), nor `reset`: a
worker that breaks a fresh connection was perhaps killed by this very request, which must not go to the next one.
"""


class RetryBudget:
    """At most SHARE of recent requests are retries, or FLOOR: retries must not multiply what overloads a fleet."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._period = 0
        self._requests: Counter[int] = Counter()
        self._retries: Counter[int] = Counter()

    def request(self) -> None:
        """A sequence is tried for the first time."""
        self._turn()
        self._requests[self._period] += 1

    def retry(self) -> bool:
        """Whether one more retry is within the budget, which it then takes up."""
        self._turn()
        if self._retries.total() >= max(FLOOR, SHARE * self._requests.total()):
            return False
        self._retries[self._period] += 1
        return True

    def _turn(self) -> None:
        """Forget all but this period of WINDOW_S seconds and the last."""
        period = int(self._clock() / WINDOW_S)
        if period == self._period:
            return
        for counts in (self._requests, self._retries):
            for old in [old for old in counts if old < period - 1]:
                del counts[old]
        self._period = period


def is_retried(failure: LegFailure, attempt: int) -> bool:
    """Whether what failed in its `attempt` (counted from 1) may be tried again, if the budget allows."""
    return failure.reason in RETRIED and attempt <= MAX_RETRIES


def backoff_s(attempt: int) -> float:
    """Seconds to wait after `attempt` failed."""
    return BACKOFF_S * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.5)
