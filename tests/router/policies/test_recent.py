"""Blocks that are remembered: never more than were used, the least recent gone first."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.router.policies.index import PART, RecentBlocks

prompts = st.lists(st.integers(0, 1), max_size=12).map(tuple)
ENOUGH = 10_000


def chained(prompt: tuple[int, ...]) -> list[int]:
    """Names as blocks_of would make them, one for each number."""
    return [hash(prompt[: end + 1]) for end in range(len(prompt))]


def common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def after(history: list[tuple[int, ...]], limit: int = ENOUGH) -> RecentBlocks[None]:
    """These prompts were used, one after the other."""
    recent = RecentBlocks[None](limit)
    for prompt in history:
        recent.use(chained(prompt), None)
        recent.trim(limit)
        assert len(recent) <= limit
    return recent


@settings(deadline=None)
@given(st.lists(prompts, max_size=20), prompts, st.integers(0, 30))
def test_no_more_is_claimed_than_was_put_in(history: list[tuple[int, ...]], asked: tuple[int, ...], limit: int) -> None:
    longest = max((common(asked, prompt) for prompt in history), default=0)
    assert after(history, limit).leading(chained(asked)) <= longest


@settings(deadline=None)
@given(st.lists(prompts, max_size=20), prompts)
def test_without_a_limit_all_that_was_put_in_is_found(history: list[tuple[int, ...]], asked: tuple[int, ...]) -> None:
    longest = max((common(asked, prompt) for prompt in history), default=0)
    assert after(history).leading(chained(asked)) == longest


@settings(deadline=None)
@given(st.lists(prompts, min_size=1, max_size=20), st.integers(1, 30))
def test_what_is_dropped_is_always_the_end_of_a_prompt(history: list[tuple[int, ...]], limit: int) -> None:
    """A block never outlives the one it builds on."""
    recent = after(history, limit)
    for prompt in history:
        names = chained(prompt)
        assert not any(recent.leading([name]) for name in names[recent.leading(names) :])


def test_the_least_recently_used_prompt_goes_first() -> None:
    recent = after([(0, 0, 0), (1, 1, 1), (0, 0, 0), (2, 2, 2)], 7)
    assert [recent.leading(chained((n, n, n))) for n in range(3)] == [3, 1, 3]


@settings(deadline=None)
@given(st.lists(prompts, max_size=20), prompts, st.integers(0, 12))
def test_removed_blocks_are_not_claimed(history: list[tuple[int, ...]], gone: tuple[int, ...], start: int) -> None:
    recent = after(history)
    recent.remove(chained(gone)[start:])
    assert recent.leading(chained(gone)) <= start


def test_old_blocks_keep_their_value() -> None:
    recent = RecentBlocks[str](ENOUGH)
    recent.use([1, 2], "math")
    recent.use([1, 2, 3, 4], "code", old=3)
    assert recent.values([1, 2, 3, 4]) == ["math", "math", None, "code"]


def test_many_parts_hold_nearly_all_that_may_be_kept() -> None:
    """Each has its share, so that one that is fuller than others drops a little too early."""
    limit = 4 * PART
    recent = after([tuple(range(n, n + 1000)) for n in range(0, 50_000, 1000)], limit)
    assert 0.97 * limit < len(recent) <= limit
    assert recent.leading(chained(tuple(range(49_000, 50_000)))) == 1000
    assert recent.leading(chained(tuple(range(1000)))) == 0
