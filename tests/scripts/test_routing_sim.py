"""The simulated prefill servers, and what routing must achieve on them: counts, no timing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.contracts.router_config import PolicyName
from psserve.router.policies import make_policy
from scripts.routing_sim.cache import PageCache
from scripts.routing_sim.replay import Outcome, Servers, replay
from scripts.routing_sim.workload import Workload, make_sessions

SERVERS = Servers(kv_tokens=100_000)
QUICK = Workload(sessions=60, sessions_per_s=1.0, turns=(3, 6), task=(300, 2_000))


def run(policy: PolicyName, workload: Workload = QUICK) -> Outcome:
    return replay(make_sessions(workload), make_policy(policy, SERVERS.kv_tokens), SERVERS)


@pytest.fixture(scope="module")
def prefix() -> Outcome:
    return run("prefix")


def test_prefix_routing_gets_nearly_all_hits_that_an_oracle_gets(prefix: Outcome) -> None:
    assert prefix.oracle_share >= 0.95


def test_prefix_routing_keeps_servers_evenly_busy(prefix: Outcome) -> None:
    assert prefix.imbalance <= 1.3


def test_prefix_routing_beats_policies_that_do_not_look(prefix: Outcome) -> None:
    blind = run("round-robin")
    assert blind.oracle_tokens == prefix.oracle_tokens
    assert prefix.hit_tokens > 1.05 * blind.hit_tokens
    assert sum(prefix.busy_s) < 0.6 * sum(blind.busy_s)


def test_a_replay_is_the_same_every_time(prefix: Outcome) -> None:
    assert run("prefix") == prefix


def test_every_request_is_served_and_every_token_counted(prefix: Outcome) -> None:
    steps = [step for session in make_sessions(QUICK) for step in session.steps]
    assert prefix.requests == len(prefix.waits_s) == len(steps)
    assert prefix.prompt_tokens == sum(len(step.prompt) - 1 for step in steps)
    assert prefix.hit_tokens <= prefix.oracle_tokens <= prefix.prompt_tokens


def pages_of(prompt: tuple[int, ...]) -> list[int]:
    return [hash(prompt[: end + 1]) for end in range(len(prompt))]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 1), max_size=8).map(tuple), max_size=20), st.integers(1, 12))
def test_the_cache_is_a_tree_within_its_capacity(history: list[tuple[int, ...]], capacity: int) -> None:
    cache = PageCache(capacity)
    for prompt in history:
        pages = pages_of(prompt)
        cache.insert(pages)
        assert len(cache) <= capacity
        assert cache.match(pages) == min(len(pages), capacity)
    for prompt in history:
        pages = pages_of(prompt)
        held = cache.match(pages)
        assert not any(cache.match([page]) for page in pages[held:])


def test_the_least_recently_used_leaf_is_evicted_first() -> None:
    cache = PageCache(6)
    a, b, c = pages_of((0, 0, 0)), pages_of((1, 1, 1)), pages_of((2, 2))
    for pages in (a, b, a, c):
        cache.insert(pages)
    assert [cache.match(pages) for pages in (a, b, c)] == [3, 1, 2]
    assert cache.evicted == 2
