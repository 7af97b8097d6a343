"""The KV pool: the same hits and evictions as a tree of single pages, and no page is ever lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.bench.simulator.pool import Lease, Pool, Prefix
from tests.bench.simulator.page_cache import PageCache

SIZES = (2, 1)
SHARED = sum(SIZES)
contexts = st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 4)).map(
    lambda names: Prefix(tuple((names[: end + 1], SIZES[end]) for end in range(2)), f"session {names}")
)


def pages_of(context: Prefix, pages: int) -> list[int]:
    named: list[object] = [(key, index) for key, size in context.shared for index in range(size)]
    named += [(context.branch, index) for index in range(pages - len(named))]
    return [hash(name) for name in named]


@settings(deadline=None)
@given(st.lists(st.tuples(contexts, st.integers(1, 3)), max_size=60), st.integers(12, 40))
def test_it_hits_and_evicts_page_for_page_as_a_tree_of_pages(history: list[tuple[Prefix, int]], capacity: int) -> None:
    pool, tree = Pool(capacity), PageCache(capacity)
    lengths: dict[Prefix, int] = {}
    for context, more in history:
        pages = lengths[context] = min(12, lengths.get(context, SHARED) + more)
        lease = pool.take(context, pages, pages)
        assert lease is not None
        assert lease.hit == tree.match(pages_of(context, pages))
        pool.store(lease, pages)
        pool.release(lease)
        tree.insert(pages_of(context, pages))
        assert (pool.cached, pool.evicted) == (len(tree), tree.evicted)


requests = st.tuples(contexts, st.integers(1, 20), st.integers(0, 3), st.integers(0, 4))


@settings(deadline=None)
@given(st.lists(requests, max_size=60), st.integers(24, 48))
def test_pages_are_free_cached_or_owned_and_none_is_lost(
    history: list[tuple[Prefix, int, int, int]], capacity: int
) -> None:
    pool = Pool(capacity)
    running: list[tuple[Lease, int]] = []
    for context, pages, extra, finish in history:
        if (lease := pool.take(context, pages, pages + extra)) is not None:
            assert lease.hit <= pages
            running.append((lease, pages))
        for _ in range(min(finish, len(running))):
            ended, whole = running.pop(0)
            pool.store(ended, whole)
            pool.release(ended)
        assert pool.free >= 0
        assert pool.cached >= 0
        assert pool.owned == sum(lease.owned for lease, _ in running)
        assert pool.cached <= pool.capacity
    for lease, _ in running:
        pool.release(lease)
    assert pool.owned == 0
    assert pool.free + pool.cached == capacity


def test_what_a_request_uses_is_not_evicted() -> None:
    pool = Pool(10)
    context = Prefix((("system", 2),), "session")
    first = pool.take(context, 6, 6)
    assert first is not None
    pool.store(first, 6)
    assert pool.take(Prefix((), "another"), 5, 5) is None
    assert pool.match(context, 6) == 6


def test_more_than_the_pool_is_an_error() -> None:
    with pytest.raises(ValueError, match="11 pages in a pool of 10"):
        Pool(10).take(Prefix((("system", 2),), "session"), 11, 11)


def pages_of_prompt(prompt: tuple[int, ...]) -> list[int]:
    return [hash(prompt[: end + 1]) for end in range(len(prompt))]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 1), max_size=8).map(tuple), max_size=20), st.integers(1, 12))
def test_the_tree_of_pages_is_a_tree_within_its_capacity(history: list[tuple[int, ...]], capacity: int) -> None:
    cache = PageCache(capacity)
    for prompt in history:
        pages = pages_of_prompt(prompt)
        cache.insert(pages)
        assert len(cache) <= capacity
        assert cache.match(pages) == min(len(pages), capacity)
    for prompt in history:
        pages = pages_of_prompt(prompt)
        held = cache.match(pages)
        assert not any(cache.match([page]) for page in pages[held:])


def test_the_tree_of_pages_evicts_the_least_recently_used_leaf_first() -> None:
    cache = PageCache(6)
    a, b, c = pages_of_prompt((0, 0, 0)), pages_of_prompt((1, 1, 1)), pages_of_prompt((2, 2))
    for pages in (a, b, a, c):
        cache.insert(pages)
    assert [cache.match(pages) for pages in (a, b, c)] == [3, 1, 2]
    assert cache.evicted == 2
