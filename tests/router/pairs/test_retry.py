"""The budget of retries, and which failures are tried again. Whole requests: test_failures.py, test_load_faults.py."""

from __future__ import annotations

import pytest

from psserve.contracts.router_config import WorkerConfig
from psserve.router.pairs.retry import FLOOR, WINDOW_S, RetryBudget, backoff_s, is_retried
from psserve.router.workers.failures import LegFailure, broken
from psserve.router.workers.workers import Worker


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("requests", "allowed"), [(0, FLOOR), (10, FLOOR), (1000, 100)])
def test_a_tenth_of_the_requests_or_a_few(requests: int, allowed: int) -> None:
    budget = RetryBudget(Clock())
    for _ in range(requests):
        budget.request()
    assert [budget.retry() for _ in range(allowed + 5)] == [True] * allowed + [False] * 5


def test_what_is_long_ago_does_not_count() -> None:
    clock = Clock()
    budget = RetryBudget(clock)
    while budget.retry():
        pass
    clock.now += 2 * WINDOW_S
    assert budget.retry()


@pytest.mark.parametrize("reason", ["refused", "malformed", "split", "reset"])
def test_failures_that_would_come_again_or_kill_are_not_retried(reason: str) -> None:
    assert not is_retried(failure(reason), 1)


def test_two_retries_are_all() -> None:
    assert [is_retried(failure("error"), attempt) for attempt in (1, 2, 3)] == [True, True, False]


def test_backoff_doubles_and_varies() -> None:
    assert 0.025 <= backoff_s(1) <= 0.075
    assert 0.05 <= backoff_s(2) <= 0.15
    assert len({backoff_s(1) for _ in range(20)}) > 1


def failure(reason: str) -> LegFailure:
    worker = Worker(WorkerConfig(name="w", role="decode", module="m", port=1))
    return broken(worker, reason, "detail")
