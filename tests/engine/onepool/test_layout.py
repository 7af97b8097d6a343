"""Rows of servers never meet, and begin where a mapping can."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psserve.contracts.one_pool import LARGEST_POOL, MOST_SOURCES
from psserve.engine.onepool.layout import OS_PAGE, Layout, Pool

layouts = st.builds(
    Layout.of,
    rows=st.integers(1, 100_000),
    row_bytes=st.integers(1, 512).map(lambda numbers: 4 * numbers),
    buffers=st.integers(2, 8),
    page_size=st.sampled_from([1, 2, 16, 64]),
)


@given(
    rows=st.integers(1, 10_000), row_bytes=st.sampled_from([4, 24, 256, 6144]), page_size=st.sampled_from([1, 3, 16])
)
def test_own_rows_hold_what_is_asked_and_end_where_pages_of_both_kinds_do(
    rows: int, row_bytes: int, page_size: int
) -> None:
    layout = Layout.of(rows, row_bytes, 4, page_size)
    step = layout.own_rows
    assert step >= rows
    assert step % page_size == 0
    assert step * row_bytes % OS_PAGE == 0
    assert step - rows < page_size * OS_PAGE


@given(layouts)
def test_places_begin_after_the_own_rows_and_do_not_overlap(layout: Layout) -> None:
    firsts = [layout.first_row(place) for place in range(MOST_SOURCES)]
    assert firsts[0] == layout.own_rows
    assert all(after - before == LARGEST_POOL for before, after in pairwise(firsts))
    assert firsts[-1] + LARGEST_POOL == layout.rows
    assert all(first * layout.row_bytes % OS_PAGE == 0 for first in firsts)


@given(rows=st.integers(1, LARGEST_POOL), row_bytes=st.integers(1, 5000), buffers=st.integers(1, 9))
def test_a_pools_buffers_lie_in_its_file_one_after_the_other(rows: int, row_bytes: int, buffers: int) -> None:
    pool = Pool("one", rows, row_bytes, buffers)
    assert pool.span >= rows * row_bytes
    assert pool.span % OS_PAGE == 0
    assert pool.span <= -(-LARGEST_POOL * row_bytes // OS_PAGE) * OS_PAGE
    assert pool.file_bytes == pool.span * buffers


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({}, None),
        ({"row_bytes": 128}, "it has 4 buffers with rows of 128 bytes, and this server has 4 with rows of 64"),
        ({"buffers": 6}, "it has 6 buffers with rows of 64 bytes, and this server has 4 with rows of 64"),
        ({"rows": LARGEST_POOL}, None),
        ({"rows": LARGEST_POOL + 1}, f"it has {LARGEST_POOL + 1} rows, and there is room for {LARGEST_POOL}"),
    ],
)
def test_a_pool_of_another_shape_is_not_read(other: dict[str, int], reason: str | None) -> None:
    layout = Layout.of(rows=100, row_bytes=64, buffers=4, page_size=16)
    assert layout.why_not(replace(Pool("one", 50, 64, 4), **other)) == reason
