"""Measured runs are simulated again from their records: with a simulated run in their place, the error is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.bench.record import RunHeader, write_records
from psserve.bench.result import ResultLine
from psserve.bench.session import Session
from psserve.bench.simulator.line import line_of
from psserve.bench.simulator.simulation import FleetLoad, simulate, simulate_cells
from psserve.bench.simulator.validation import Resources, sessions_of, validate
from psserve.bench.workloads.choice import WorkloadChoice
from psserve.errors import BenchError
from tests.bench.simulator.sessions import agents, setup


@settings(deadline=None, max_examples=6)
@given(st.integers(0, 100), st.integers(1, 3), st.sampled_from([None, 2.0]))
def test_the_records_of_a_run_tell_its_sessions(seed: int, fan: int, rate: float | None) -> None:
    asked = list(agents(4, rate, seed=seed, fan=fan, turns=3))
    found = sessions_of(simulate(setup("shared"), asked, None if rate else 2).records, asked[0].system_tokens)
    assert sorted(map(lengths, found)) == sorted(map(lengths, asked))
    for session, original in zip(sorted(found, key=name), sorted(asked, key=name), strict=True):
        pauses = [step.delay_s for step in session.steps[1:]]
        assert pauses == pytest.approx([step.delay_s for step in original.steps[1:]])


def name(session: Session) -> str:
    return session.id


def lengths(session: Session) -> tuple[str, str]:
    return session.id, str([(step.new_tokens, step.calls) for step in session.steps])


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ResultLine]]:
    folder = tmp_path_factory.mktemp("comparison")
    return folder, list(runs(folder))


def runs(folder: Path) -> Iterator[ResultLine]:
    made = setup("disaggregated", kv_tokens=12_500, reserved_tokens=512, chunk=2_048, cores=2)
    for concurrency in (1, 3):
        choice = WorkloadChoice(preset="react", changes={"scale": 0.2})
        load = FleetLoad(workload=choice, sessions=12, concurrency=concurrency)
        outcome, workload = simulate_cells(made, load, 1)
        line = line_of(outcome, made, load, workload=workload, basis={}, command="")
        write_records(folder / f"{line['psserve']['run']}.jsonl", RunHeader("run", "system", 0.0), outcome.records)
        yield line


RESOURCES = Resources(kv_tokens=100_000, cores={"disaggregated": 2}, chunk=2_048)


def test_a_run_that_is_simulated_again_has_nearly_the_same_figures(comparison: tuple[Path, list[ResultLine]]) -> None:
    folder, lines = comparison
    rows = validate(lines, folder, RESOURCES)
    assert [row["concurrency"] for row in rows] == [1, 3]
    for row in rows:
        assert all(abs(row[name]["error_pct"]) < 5 for name in ("sessions_per_s", "p50_session_s", "p95_session_s"))


def test_without_a_quiet_run_there_is_nothing_to_calibrate_by(comparison: tuple[Path, list[ResultLine]]) -> None:
    folder, lines = comparison
    with pytest.raises(BenchError, match="no run with one session at a time"):
        validate(lines[1:], folder, RESOURCES)
