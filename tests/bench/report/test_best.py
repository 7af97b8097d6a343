"""Systems at their best limits, and hits over sessions at a time."""

from __future__ import annotations

import pytest

from psserve.bench.report.best import best_cells, best_document, best_table, hits_table
from psserve.bench.report.summary import Summary, points_of, summarise_points
from psserve.bench.report.write import document
from tests.bench.report.results import line

SECONDS = {"shared": {2: 4.0, 4: 2.0, 8: 1.0}, "disaggregated": {2: 6.0, 4: 3.0, 8: 9.0}}
"""What a session takes at each limit: ours is best at 8, the other at 4."""


def sweep(arriving: bool, repeats: int = 2) -> Summary:
    lines = [
        line(system, (repeat + 1) * seconds, repeat=repeat, **({"limit": at} if arriving else {"concurrency": at}))
        for repeat in range(repeats)
        for system, over in SECONDS.items()
        for at, seconds in over.items()
    ]
    return summarise_points(points_of(lines))


@pytest.mark.parametrize("arriving", [True, False])
def test_each_system_is_told_at_its_own_best_limit(arriving: bool) -> None:
    shown = sweep(arriving)
    assert {system: cell.load.value for system, cell in best_cells(shown).items()} == {"shared": 8, "disaggregated": 4}
    told = best_document(shown)
    assert told is not None
    assert told["rate"] == (1.0 if arriving else None)
    assert told["systems"]["disaggregated"]["at"] == 4
    assert told["ratios"]["disaggregated"]["throughput"] == {"middle": 3, "range": [3, 3]}
    assert told["ratios"]["disaggregated"]["p95_session"]["middle"] == 3
    assert document(shown)["best"] == told
    rows = {row[0]: row[1:] for row in best_table(shown).rows}
    assert rows["disaggregated"][0] == "4"
    assert rows["disaggregated"][-2:] == ("3.00x", "3.00x")
    assert rows["shared"][-2:] == ("-", "-")


def test_latency_chooses_where_sessions_arrive_and_throughput_where_the_next_one_waits() -> None:
    """More at a time: more requests a second, and every session takes longer."""
    arriving, closed = (
        [line("shared", 1.0, limit=2), line("shared", 2.0, limit=4)],
        [line("shared", 2.0, concurrency=2), line("shared", 1.0, concurrency=4)],
    )
    for lines in (arriving, closed):
        lines[1]["request_throughput"], lines[0]["request_throughput"] = 9.0, 1.0
    lines_best = [best_cells(summarise_points(points_of(lines)))["shared"].load.value for lines in (arriving, closed)]
    assert lines_best == [2, 4]


def test_one_limit_is_no_choice() -> None:
    shown = summarise_points(points_of([line("shared", 1.0, limit=2)]))
    assert (best_cells(shown), best_document(shown), best_table(shown).rows, hits_table(shown).rows) == (
        {},
        None,
        (),
        (),
    )


def test_other_rates_are_another_sweep() -> None:
    lines = [line("shared", 1.0, limit=2, rate=1.0), line("shared", 9.0, limit=2, rate=2.0)]
    lines.append(line("shared", 5.0, limit=4, rate=2.0))
    assert best_cells(summarise_points(points_of(lines)))["shared"].load.value == 4


def test_hits_are_a_curve_over_sessions_at_a_time() -> None:
    shown = hits_table(sweep(arriving=True))
    assert shown.columns == ("", "shared", "disaggregated")
    assert [row[0] for row in shown.rows] == ["2", "4", "8"]
    assert shown.rows[0][1:] == ("40.0%", "40.0%")
