"""Backoff and giving up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from psserve.fleet.run.member import RestartPolicy, Restarts


def test_waits_double_up_to_the_longest() -> None:
    restarts = Restarts(RestartPolicy(limit=8))
    assert [restarts.delay(now) for now in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_gives_up_beyond_the_limit() -> None:
    restarts = Restarts(RestartPolicy(limit=2))
    assert [restarts.delay(0.0) for _ in range(3)] == [1, 2, None]
    assert restarts.total == 2


def test_ends_long_ago_do_not_count() -> None:
    restarts = Restarts(RestartPolicy(limit=1, window_s=600))
    assert [restarts.delay(now) for now in (0, 600, 1199, 1200)] == [1, 1, None, 1]


@given(st.lists(st.floats(0, 5000), max_size=40).map(sorted), st.integers(1, 6))
def test_never_more_than_the_limit_within_a_window(ends: list[float], limit: int) -> None:
    policy = RestartPolicy(limit=limit)
    restarts = Restarts(policy)
    granted = [end for end in ends if restarts.delay(end) is not None]
    for end in granted:
        assert sum(end <= other < end + policy.window_s for other in granted) <= limit
