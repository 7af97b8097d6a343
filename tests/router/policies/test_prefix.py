"""Where prefill work goes: to the cache, unless recomputing is cheaper."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.router.policies import Policy, make_policy
from tests.router.policies.placing import BLOCK, SERVERS, request, text


def prefix_policy() -> Policy:
    return make_policy("prefix", 100_000)


def test_prompts_that_begin_alike_meet_and_new_ones_are_spread() -> None:
    policy = prefix_policy()
    first = {}
    for number in range(3):
        choice = policy.choose(request(text(number, 10 * BLOCK)), SERVERS)
        first[number] = choice.server
        assert choice.outcome == "new"
        policy.finish(choice, served=True)
    assert sorted(first.values()) == ["a", "b", "c"]
    for number in (2, 0, 1, 1):
        choice = policy.choose(request(text(number, 10 * BLOCK) + text(9, BLOCK)), SERVERS)
        assert (choice.server, choice.outcome, choice.matched) == (first[number], "hit", choice.matched)
        assert choice.matched >= 10
        policy.finish(choice, served=True)


def test_only_what_is_missing_counts_as_work() -> None:
    policy = prefix_policy()
    policy.choose(request(text(1, 10 * BLOCK)), SERVERS)
    again = policy.choose(request([*text(1, 10 * BLOCK), 7]), ("a",))
    assert again.tokens == 1
    assert policy.outstanding("a") == 10 * BLOCK + 1


def test_a_busy_server_loses_the_prompt_exactly_when_recomputing_is_cheaper() -> None:
    """cost = tokens missing + tokens outstanding: 40 on b against what waits on a. Both were given as much before."""
    shared = text(1, 10 * BLOCK)
    for waiting, expected in ((40, "a"), (41, "b")):
        policy = prefix_policy()
        policy.finish(policy.choose(request(shared), ("a",)), served=True)
        policy.finish(policy.choose(request(text(3, waiting + 10 * BLOCK)), ("b",)), served=True)
        policy.choose(request(text(2, waiting)), ("a",))
        choice = policy.choose(request(shared), ("a", "b"))
        assert (choice.server, choice.outcome) == (expected, {"a": "hit", "b": "balanced"}[expected])


def test_a_batch_of_different_prompts_is_spread() -> None:
    policy = prefix_policy()
    chosen = [policy.choose(request(text(number, 5 * BLOCK)), SERVERS).server for number in range(6)]
    assert sorted(chosen) == ["a", "a", "b", "b", "c", "c"]


def test_a_restarted_server_is_not_thought_to_hold_anything() -> None:
    policy = prefix_policy()
    policy.finish(policy.choose(request(text(1, 10 * BLOCK)), SERVERS), served=True)
    policy.forget("a")
    assert policy.choose(request(text(1, 10 * BLOCK)), SERVERS).outcome == "new"


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 60), st.booleans()), max_size=60))
def test_router_instances_with_the_same_history_agree(history: list[tuple[int, int, bool]]) -> None:
    chosen = []
    for _ in range(2):
        policy, open_choices, servers = prefix_policy(), [], []
        for start, length, done in history:
            choice = policy.choose(request(text(start, length)), SERVERS)
            servers.append((choice.server, choice.outcome, choice.tokens))
            open_choices.append(choice)
            if done:
                policy.finish(open_choices.pop(0), served=True)
        chosen.append(servers)
    assert chosen[0] == chosen[1]


def test_what_many_sessions_share_is_copied_to_idle_servers() -> None:
    """Nothing ever queues here, and still not all sessions stay where the first one put their system prompt."""
    policy, system = prefix_policy(), text(0, 20 * BLOCK)
    chosen = []
    for number in range(1, 91):
        choice = policy.choose(request(system + text(number, 10 * BLOCK)), SERVERS)
        policy.finish(choice, served=True)
        chosen.append(choice.server)
    assert all(chosen.count(name) >= 20 for name in SERVERS)
