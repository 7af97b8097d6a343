"""The lead: work given lately, compared with the others."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.router.policies.prefix import RecentWork

SERVERS = ("a", "b")


def test_the_lead_is_over_the_mean_and_never_negative() -> None:
    recent = RecentWork(1_000)
    assert recent.leads(SERVERS) == {"a": 0, "b": 0}
    recent.add("a", 300)
    recent.add("b", 100)
    assert recent.leads(SERVERS) == {"a": 100, "b": 0}


def test_new_and_restarted_servers_have_nothing_to_catch_up_on() -> None:
    recent = RecentWork(1_000)
    recent.leads(SERVERS)
    recent.add("a", 500)
    recent.add("b", 200)
    assert recent.leads((*SERVERS, "c"))["c"] == 0
    recent.add("c", 30)
    assert recent.leads((*SERVERS, "c"))["c"] == 20  # from 350 to 380, where the mean is 360
    recent.forget("a")
    assert recent.leads(SERVERS) == {"a": 0, "b": 0}


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(SERVERS), st.integers(0, 400)), max_size=100))
def test_old_work_is_forgotten(history: list[tuple[str, int]]) -> None:
    recent = RecentWork(500)
    recent.leads(SERVERS)
    for server, tokens in history:
        recent.add(server, tokens)
        assert max(recent.leads(SERVERS).values()) <= 500
