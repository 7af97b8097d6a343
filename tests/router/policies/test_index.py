"""What servers are thought to hold: never more than they were sent, and never more than fits."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.router.policies import Choice
from psserve.router.policies.index import BlockLru, PredictedHoldings
from tests.router.policies.placing import BLOCK, request, text

prompts = st.lists(st.integers(0, 1), max_size=12).map(tuple)


def chained(prompt: tuple[int, ...]) -> list[int]:
    """Names as blocks_of would make them, one for each number."""
    return [hash(prompt[: end + 1]) for end in range(len(prompt))]


def common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@settings(deadline=None)
@given(st.lists(prompts, max_size=20), prompts, st.integers(0, 30))
def test_no_more_is_claimed_than_was_put_in(history: list[tuple[int, ...]], asked: tuple[int, ...], limit: int) -> None:
    lru = BlockLru()
    for prompt in history:
        lru.use(chained(prompt), limit)
        assert len(lru) <= limit
    assert lru.match(chained(asked)) <= max((common(asked, prompt) for prompt in history), default=0)


@settings(deadline=None)
@given(st.lists(prompts, max_size=20), prompts)
def test_without_a_limit_all_that_was_put_in_is_found(history: list[tuple[int, ...]], asked: tuple[int, ...]) -> None:
    lru = BlockLru()
    for prompt in history:
        lru.use(chained(prompt), 10_000)
    assert lru.match(chained(asked)) == max((common(asked, prompt) for prompt in history), default=0)


@settings(deadline=None)
@given(st.lists(prompts, min_size=1, max_size=20), st.integers(1, 30))
def test_what_is_dropped_is_always_the_end_of_a_prompt(history: list[tuple[int, ...]], limit: int) -> None:
    """A block never outlives the one it builds on."""
    lru = BlockLru()
    for prompt in history:
        lru.use(chained(prompt), limit)
    for prompt in history:
        names = chained(prompt)
        held = lru.match(names)
        assert not any(lru.match([name]) for name in names[held:])


def test_the_least_recently_used_prompt_goes_first() -> None:
    lru = BlockLru()
    for prompt in ((0, 0, 0), (1, 1, 1), (0, 0, 0), (2, 2, 2)):
        lru.use(chained(prompt), 7)
    assert [lru.match(chained((n, n, n))) for n in range(3)] == [3, 1, 3]


@settings(deadline=None)
@given(st.lists(prompts, max_size=20), prompts, st.integers(0, 12))
def test_removed_blocks_are_not_claimed(history: list[tuple[int, ...]], gone: tuple[int, ...], start: int) -> None:
    lru = BlockLru()
    for prompt in history:
        lru.use(chained(prompt), 10_000)
    lru.remove(chained(gone)[start:])
    assert lru.match(chained(gone)) <= start


def test_each_server_holds_its_own_within_its_capacity() -> None:
    holdings = PredictedHoldings(capacity=5 * BLOCK)
    for number, server in enumerate(("a", "b", "a")):
        holdings.assigned(Choice(request(text(number, 4 * BLOCK)), server, "new", 0))
    held = [
        [holdings.match(server, request(text(n, 4 * BLOCK)).prompt) for n in range(3)] for server in ("a", "b", "c")
    ]
    assert held == [[1, 0, 4], [0, 4, 0], [0, 0, 0]]


def test_after_a_failure_only_what_was_held_before_is_claimed() -> None:
    holdings, asked = PredictedHoldings(capacity=1_000), request(text(1, 8 * BLOCK))
    holdings.assigned(Choice(request(text(1, 3 * BLOCK)), "a", "new", 0))
    choice = Choice(asked, "a", "hit", 0, matched=3)
    holdings.assigned(choice)
    assert holdings.match("a", asked.prompt) == 8
    holdings.finished(choice, served=False)
    assert holdings.match("a", asked.prompt) == 3


def test_a_forgotten_server_holds_nothing() -> None:
    holdings, asked = PredictedHoldings(capacity=1_000), request(text(1, 8 * BLOCK))
    choice = Choice(asked, "a", "new", 0)
    holdings.assigned(choice)
    holdings.forget("a")
    holdings.finished(choice, served=False)
    assert holdings.match("a", asked.prompt) == 0
