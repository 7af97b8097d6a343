"""Fleets of several cells, and what large runs keep of their sessions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from psserve.bench.simulator.line import line_of
from psserve.bench.simulator.simulation import FleetLoad, simulate_cells
from psserve.bench.simulator.system import Setup
from psserve.bench.workloads.choice import WorkloadChoice
from psserve.errors import UsageError
from tests.bench.simulator.sessions import setup

CHOICE = WorkloadChoice(preset="react", changes={"scale": 0.1})
LOAD = FleetLoad(workload=CHOICE, sessions=21, concurrency=6)


@pytest.fixture(scope="module")
def made() -> Setup:
    return setup("shared", prefill=2)


def test_cells_share_the_load_and_their_counts_add_up(made: Setup) -> None:
    ended: list[int] = []
    outcome, workload = simulate_cells(made, LOAD, 2, progress=ended.append)
    assert outcome.counters.sessions == 21
    assert outcome.counters.requests == len(outcome.records) == 21 * 8
    assert len({record.session for record in outcome.records}) == 21
    assert len(outcome.busy_s) == 2 * made.servers
    assert ended == list(range(1, 22))
    assert workload["sessions"] == 21


def test_cells_in_processes_of_their_own_have_the_same_result(made: Setup) -> None:
    one, two = (simulate_cells(made, LOAD, 3, jobs=jobs)[0] for jobs in (1, 2))
    assert one == two


def test_of_kept_sessions_all_requests_are_kept_and_totals_are_of_all(made: Setup) -> None:
    whole, workload = simulate_cells(made, LOAD, 1)
    some, _ = simulate_cells(made, LOAD, 1, every=3)
    assert some.records == [record for record in whole.records if int(record.session.rsplit("-", 1)[1]) % 3 == 0]
    lines = [line_of(outcome, made, LOAD, workload=workload, basis={}, command="") for outcome in (whole, some)]
    for key in ("completed", "total_input_tokens", "total_output_tokens"):
        assert lines[0][key] == lines[1][key]
    assert lines[1]["psserve"]["sessions"]["completed"] == 21
    assert lines[1]["psserve"]["kept_one_in"] == 3


def test_warm_up_is_not_counted(made: Setup) -> None:
    load = replace(LOAD, warmup=5)
    outcome, workload = simulate_cells(made, load, 1)
    line = line_of(outcome, made, load, workload=workload, basis={}, command="")
    assert line["completed"] == 16 * 8
    assert line["psserve"]["warmup_requests"] == 5 * 8


def test_a_cell_without_work_is_refused(made: Setup) -> None:
    with pytest.raises(UsageError, match="7 cells need at least as many sessions"):
        simulate_cells(made, LOAD, 7)
