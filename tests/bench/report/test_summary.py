"""Ratios and their spread, from result lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from psserve.bench.report.summary import (
    P95_SESSION,
    THROUGHPUT,
    Spread,
    Summary,
    points_of,
    read_points,
    summarise_points,
)
from psserve.bench.report.tables import notes
from psserve.bench.report.write import document
from psserve.bench.result import append_result
from psserve.errors import BenchError, UsageError
from tests.bench.report.results import line


def summary(*lines: dict[str, object], **at: int) -> Summary:
    return summarise_points(points_of(lines), **at)


def pairs(*seconds: tuple[float, float], **facts: int) -> list[dict[str, object]]:
    """shared and disaggregated in turns, with so many seconds a session."""
    return [
        line(system, took, repeat=repeat, **facts)
        for repeat, both in enumerate(seconds)
        for system, took in zip(("shared", "disaggregated"), both, strict=True)
    ]


def test_a_ratio_is_above_one_where_ours_is_better_and_spreads_over_the_repeats() -> None:
    shown = summary(*pairs((1, 2), (1, 4), (2, 6)))
    assert shown.ours == "shared"
    for metric in (THROUGHPUT, P95_SESSION):
        assert shown.ratio("disaggregated", shown.head, metric) == Spread(pytest.approx(3), 2, 4, 3)


def test_repeats_are_compared_with_their_like_and_others_are_left_out() -> None:
    lines = [*pairs((1, 2)), line("shared", 5, repeat=1)]
    shown = summary(*lines)
    assert shown.ratio("disaggregated", shown.head, THROUGHPUT) == Spread(2, 2, 2, 1)


def test_runs_that_were_interrupted_count_in_no_figure() -> None:
    shown = summary(*pairs((1, 2)), line("shared", 9, repeat=1, partial=True))
    values = shown.values("shared", shown.head, P95_SESSION)
    assert values is not None
    assert values.count == 1
    assert any("1 of 3 runs were interrupted" in note for note in notes(shown))


def test_the_headline_is_about_the_most_modules_and_the_highest_load_that_both_ran() -> None:
    lines = [
        *pairs((1, 2)),
        *pairs((1, 3), concurrency=8),
        *pairs((1, 4), modules=("math", "code")),
        line("shared", 1, concurrency=16, modules=("math", "code")),
    ]
    shown = summary(*lines)
    assert (shown.head.modules, shown.head.load.value) == (2, 4)
    assert summary(*lines, modules=1).head.load.value == 8
    with pytest.raises(UsageError, match="cannot be about what has not run"):
        summary(*lines, modules=3)


def test_the_document_begins_with_the_ratios() -> None:
    told = document(summary(*pairs((1, 2), (1, 2), (1, 2))))
    assert next(iter(told)) == "ratios"
    assert told["ratios"]["disaggregated"]["throughput"] == 2
    assert told["ratios"]["disaggregated"]["p95_session"] == 2
    assert told["at"] == {"modules": 1, "concurrency": 4}
    assert told["cells"][0]["systems"]["shared"]["handoff_share"] == pytest.approx(1 / 9)


def test_one_repeat_and_simulation_are_told() -> None:
    assert notes(summary(*pairs((1, 2)))) == ["Some figures rest on 1 repeat: take their spread as unknown."]
    simulated = [line("shared", 1, simulated=True), line("disaggregated", 2, simulated=True)]
    assert notes(summary(*simulated))[0].startswith("Simulated:")


def test_lines_that_do_not_say_their_repeat_count_up() -> None:
    lines = [line("shared", 1), line("shared", 1)]
    for told in lines:
        del told["psserve"]["repeat"]
    assert [point.repeat for point in points_of(lines)] == [0, 1]


def test_a_folder_is_all_its_result_files(tmp_path: Path) -> None:
    for number, told in enumerate(pairs((1, 2))):
        append_result(tmp_path / f"{number}.jsonl", told)
    assert [point.system for point in read_points([tmp_path])] == ["shared", "disaggregated"]
    with pytest.raises(BenchError, match=r"they have no \*\.jsonl"):
        read_points([tmp_path / ".."][:0])
