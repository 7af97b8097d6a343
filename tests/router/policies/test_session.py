"""Session affinity by rendezvous hashing, with bounded load."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.router.policies.simple import OVERLOAD_FACTOR, SessionAffinity, rendezvous
from tests.router.policies.placing import SERVERS, request, text

names = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6, unique=True)


@settings(deadline=None)
@given(st.text(), names, st.randoms(use_true_random=False))
def test_the_order_in_which_servers_are_known_does_not_matter(key: str, servers: list[str], rng) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(servers)
    rng.shuffle(shuffled)
    assert rendezvous(key, servers) == rendezvous(key, shuffled)


@settings(deadline=None)
@given(st.text(), names)
def test_losing_a_server_moves_only_its_own_sessions(key: str, servers: list[str]) -> None:
    own = rendezvous(key, servers)
    for lost in set(servers) - {own}:
        assert rendezvous(key, [name for name in servers if name != lost]) == own


def test_sessions_are_spread() -> None:
    counts = Counter(rendezvous(f"session {number}", SERVERS) for number in range(3000))
    assert all(800 < counts[name] < 1200 for name in SERVERS)


def test_the_choice_is_the_same_in_every_process() -> None:
    """Routers share no state: these are facts, not only equal within one process."""
    assert [rendezvous(f"s{number}", SERVERS) for number in range(8)] == ["c", "c", "a", "a", "b", "c", "b", "b"]


def test_routers_agree_about_sessions_whatever_each_has_served_before() -> None:
    one, other = SessionAffinity(10_000), SessionAffinity(10_000)
    for number in range(20):
        other.choose(request(text(number, 30), f"other {number}"), SERVERS)
    for number in range(20):
        asked = request(text(number, 30), f"session {number}")
        assert one.choose(asked, SERVERS).server == other.choose(asked, SERVERS).server


def test_an_overloaded_server_s_sessions_go_to_the_least_loaded() -> None:
    policy = SessionAffinity(floor=100)
    own = rendezvous("s", SERVERS)
    first = [policy.choose(request([], output=50), SERVERS) for _ in range(2)]
    assert [(choice.server, choice.outcome) for choice in first] == [(own, "affinity")] * 2
    moved = policy.choose(request([], output=50), SERVERS)
    assert moved.server != own
    assert moved.outcome == "overloaded"
    policy.finish(first[0], served=True)
    assert policy.choose(request([], output=50), SERVERS).server == own


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 400)), max_size=60))
def test_no_server_is_loaded_beyond_the_bound(work: list[tuple[int, int]]) -> None:
    """A pick is within the bound, or the least loaded one."""
    policy, floor = SessionAffinity(floor=500), 500
    for session, tokens in work:
        before = {name: policy.outstanding(name) for name in SERVERS}
        choice = policy.choose(request([], f"s{session}", tokens), SERVERS)
        mean = (sum(before.values()) + tokens) / len(SERVERS)
        bound = max(floor, OVERLOAD_FACTOR * mean)
        least = min(before.values())
        assert before[choice.server] + tokens <= bound or before[choice.server] == least
