from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.measuring.statistics import in_ms, median, percentile

values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


@given(values)
def test_the_ends_are_the_smallest_and_the_largest_value(numbers: list[float]) -> None:
    assert (percentile(numbers, 0), percentile(numbers, 100)) == (min(numbers), max(numbers))


@given(values)
def test_the_median_is_that_of_the_standard_library(numbers: list[float]) -> None:
    assert median(numbers) == pytest.approx(statistics.median(numbers), abs=1e-6)


def test_a_percentile_lies_between_its_two_nearest_ranks() -> None:
    assert percentile([10, 20, 30, 40], 95) == pytest.approx(38.5)


@pytest.mark.parametrize(("numbers", "percent"), [([], 50), ([1.0], -1), ([1.0], 101)])
def test_no_values_and_impossible_percentages_are_refused(numbers: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(numbers, percent)


def test_seconds_become_milliseconds() -> None:
    assert in_ms(0.0123456) == 12.346
