"""Costs from measured runs: what was put in comes out, and what was not measured is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.bench.record import RunHeader, write_records
from psserve.bench.simulator.calibration import calibrate, fit
from psserve.bench.simulator.simulation import simulate
from psserve.errors import BenchError, UsageError
from tests.bench.simulator.sessions import COSTS, agents, one_call, setup

coefficients = st.tuples(*[st.sampled_from([0.0, 1e-3, 0.5]) for _ in range(3)]).filter(any)


@settings(deadline=None)
@given(coefficients)
def test_a_fit_finds_what_made_the_points(made: tuple[float, float, float]) -> None:
    rows = [(1.0, float(x), float(x * x)) for x in (1, 2, 5, 9, 20)]
    seconds = [sum(c * term for c, term in zip(made, row, strict=True)) for row in rows]
    found = fit(("constant", "line", "square"), rows, seconds)
    assert found.coefficients == pytest.approx(made, abs=1e-9)
    assert found.error_pct == pytest.approx(0, abs=1e-6)


def test_no_coefficient_is_negative() -> None:
    found = fit(("constant", "line"), [(1, 1), (1, 2), (1, 3)], [3.0, 2.0, 1.0])
    assert min(found.coefficients) >= 0
    assert len(found.residuals) == 3


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated run with one session at a time, as if it had been measured."""
    path = tmp_path_factory.mktemp("records") / "run.jsonl"
    write_records(path, RunHeader("run", "shared", 0.0), simulate(setup("shared"), agents(12), 1).records)
    return path


def test_a_simulation_that_is_calibrated_by_another_one_agrees_with_it(records: Path) -> None:
    made = calibrate([records])
    assert made.costs.prefill.token_s == pytest.approx(COSTS.prefill.token_s, rel=0.02)
    assert made.costs.decode.step_s == pytest.approx(COSTS.decode.step_s, rel=0.02)
    first, second = (simulate(setup("shared", costs=costs), agents(20, seed=2), 3) for costs in (COSTS, made.costs))
    assert second.duration_s == pytest.approx(first.duration_s, rel=0.05)


def test_sessions_beyond_twice_what_was_measured_are_refused(records: Path) -> None:
    made = calibrate([records])
    reach = setup("shared", costs=made.costs, longest_tokens=made.longest_tokens)
    with pytest.raises(UsageError, match="the calibration reaches to"):
        simulate(reach, [one_call("long", made.longest_tokens, 1)], 1)


def test_runs_without_quiet_moments_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "busy.jsonl"
    write_records(path, RunHeader("run", "shared", 0.0), simulate(setup("shared"), agents(12), 12).records)
    with pytest.raises(BenchError, match="calibrate with the records of a run with --concurrency 1"):
        calibrate([path])
