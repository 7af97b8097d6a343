"""Rows of servers never meet, and begin where a mapping can."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from psserve.contracts.one_pool import GPU_STEP, LARGEST_POOL, MOST_ELEMENTS, MOST_SOURCES, round_up, row_step
from psserve.engine.onepool.layout import OS_PAGE, Layout, Pool
from psserve.errors import EngineError

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
def test_a_pools_buffers_lie_one_after_the_other_in_whole_pages(rows: int, row_bytes: int, buffers: int) -> None:
    pool = Pool("one", rows, row_bytes, buffers)
    assert pool.span >= rows * row_bytes
    assert pool.span % OS_PAGE == 0
    assert pool.span <= -(-LARGEST_POOL * row_bytes // OS_PAGE) * OS_PAGE


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({}, None),
        ({"row_bytes": 128}, "it has 4 buffers with rows of 128 bytes, and this server has 4 with rows of 64"),
        ({"buffers": 6}, "it has 6 buffers with rows of 64 bytes, and this server has 4 with rows of 64"),
        (
            {"step": GPU_STEP},
            f"its memory is mapped in steps of {GPU_STEP} bytes, and this server's in steps of {OS_PAGE}",
        ),
        ({"rows": LARGEST_POOL}, None),
        ({"rows": LARGEST_POOL + 1}, f"it has {LARGEST_POOL + 1} rows, and there is room for {LARGEST_POOL}"),
    ],
)
def test_a_pool_of_another_shape_is_not_read(other: dict[str, int], reason: str | None) -> None:
    layout = Layout.of(rows=100, row_bytes=64, buffers=4, page_size=16)
    assert layout.why_not(replace(Pool("one", 50, 64, 4), **other)) == reason


# On GPUs: mapped in large steps, and counted by kernels.

heads = st.sampled_from([1, 2, 3, 5, 8, 32])
head_sizes = st.sampled_from([64, 80, 96, 128, 256])
sizes = st.sampled_from([1, 2])


@given(
    rows=st.integers(1, 400_000),
    lent=st.integers(1, 1_000_000),
    elements=st.builds(lambda heads, size: heads * size, heads, head_sizes),
    item=sizes,
    page_size=st.sampled_from([1, 16, 64]),
)
def test_every_place_of_a_gpus_buffer_begins_with_a_step_and_a_page_and_kernels_can_count_to_its_end(
    rows: int, lent: int, elements: int, item: int, page_size: int
) -> None:
    most = MOST_ELEMENTS // elements

    whole = row_step(elements * item, page_size, GPU_STEP)
    assume(round_up(rows, whole) + round_up(lent, whole) <= most)
    layout = Layout.of(rows, elements * item, 4, page_size, step=GPU_STEP, lent_rows=lent, most_rows=most)
    assert layout.own_rows >= rows
    assert layout.place_rows >= lent
    assert 1 <= layout.places <= MOST_SOURCES
    assert layout.rows * elements <= MOST_ELEMENTS
    for place in range(layout.places + 1):
        first = layout.first_row(place)
        assert first % page_size == 0
        assert first * layout.row_bytes % GPU_STEP == 0
    pool = Pool("one", lent, elements * item, 4, GPU_STEP)
    assert layout.why_not(pool) is None
    assert pool.span <= layout.place_rows * layout.row_bytes
    assert pool.span % GPU_STEP == 0


def test_padding_is_less_than_a_step_where_rows_are_powers_of_two() -> None:
    layout = Layout.of(36_064, 2_048, 72, 64, step=GPU_STEP, lent_rows=216_064, most_rows=MOST_ELEMENTS // 1_024)
    assert (layout.own_rows - 36_064) * 2_048 < GPU_STEP
    assert layout.places == MOST_SOURCES


def test_a_pool_that_kernels_could_not_count_is_refused() -> None:
    with pytest.raises(EngineError, match=re.escape(f"kernels count {MOST_ELEMENTS // 1_024} at most")):
        Layout.of(100_000, 2_048, 72, 64, step=GPU_STEP, lent_rows=2_000_000, most_rows=MOST_ELEMENTS // 1_024)
