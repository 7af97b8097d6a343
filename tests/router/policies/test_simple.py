"""Policies that do not look at the prompt, and the book that all keep."""

from __future__ import annotations

from collections import Counter

import pytest

from psserve.contracts.router_config import POLICIES
from psserve.router.policies import make_policy
from psserve.router.policies.simple import LeastLoaded, Random, RoundRobin
from tests.router.policies.placing import SERVERS, request, text


def test_round_robin_takes_turns_whatever_servers_come_and_go() -> None:
    policy = RoundRobin()
    assert [policy.choose(request([1]), SERVERS).server for _ in range(4)] == ["a", "b", "c", "a"]
    assert policy.choose(request([1]), ("a", "c")).server == "c"
    assert policy.choose(request([1]), ("a", "b", "c", "d")).server == "d"
    assert policy.choose(request([1]), ("a", "b", "c", "d")).server == "b"


def test_least_loaded_counts_tokens_until_they_are_given_back() -> None:
    policy = LeastLoaded()
    big = policy.choose(request(text(1, 100), output=50), SERVERS)
    small = policy.choose(request(text(2, 10)), SERVERS)
    assert (policy.outstanding("a"), policy.outstanding("b"), policy.outstanding("c")) == (150, 10, 0)
    assert policy.choose(request(text(3, 20)), SERVERS).server == "c"
    policy.finish(big, served=True)
    policy.finish(small, served=False)
    assert (policy.outstanding("a"), policy.outstanding("b")) == (0, 0)


def test_random_is_the_same_for_the_same_seed_and_uses_every_server() -> None:
    one, other = (Counter(Random(7).choose(request([1]), SERVERS).server for _ in range(1)) for _ in range(2))
    assert one == other
    policy = Random(7)
    assert set(policy.choose(request([1]), SERVERS).server for _ in range(50)) == set(SERVERS)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_gives_all_work_back(name: str) -> None:
    policy = make_policy(name, 1_000)  # type: ignore[arg-type]
    choices = [policy.choose(request(text(i % 3, 40), f"s{i % 5}", 8), SERVERS) for i in range(30)]
    assert sum(map(policy.outstanding, SERVERS)) == sum(choice.tokens for choice in choices) > 0
    policy.forget("a")
    for choice in choices:
        policy.finish(choice, served=True)
    assert sum(map(policy.outstanding, SERVERS)) == 0
    assert policy.name == name
