"""The order of a comparison, its folder, and what its options mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from psserve.bench.compare.plan import ComparisonFolder, Plan, loads_of, numbers, saved_arguments
from psserve.bench.compare.systems import started_names, systems_of
from psserve.bench.result import LoadLevel, append_result
from psserve.cli.main import cli
from psserve.errors import BenchError, UsageError
from tests.bench.report.results import line

LOADS = (LoadLevel("concurrency", 1), LoadLevel("concurrency", 8))


def test_every_system_has_its_turn_before_the_next_repeat() -> None:
    plan = Plan(systems=("a", "b"), sizes=(1, 4), loads=LOADS, repeats=2)
    visited = [(visit.runs[0].repeat, visit.modules, visit.system) for visit in plan.visits()]
    assert visited == [(repeat, modules, system) for repeat in (0, 1) for modules in (1, 4) for system in ("a", "b")]
    names = [run.name for run in plan.runs]
    assert len(set(names)) == len(names) == 16
    assert names[0] == "a.m1.c1.r1"
    limited = Plan(systems=("a",), sizes=(1,), loads=loads_of("2", "0.5,1"), repeats=1)
    assert [run.name for run in limited.runs] == ["a.m1.r0.5-l2.r1", "a.m1.r1-l2.r1"]


def test_a_folder_with_results_is_not_begun_anew(tmp_path: Path) -> None:
    store = ComparisonFolder.create(tmp_path / "out", ["--repeats", "2"])
    assert store.done() == set()
    append_result(store.results, line("shared", 1, repeat=0))
    append_result(store.results, line("shared", 1, repeat=1, partial=True))
    assert store.done() == {"shared-0"}
    assert saved_arguments(tmp_path / "out") == ["--repeats", "2"]
    with pytest.raises(UsageError, match="--resume"):
        ComparisonFolder.create(tmp_path / "out", [])


def test_a_folder_without_a_comparison_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="holds no comparison to go on with"):
        saved_arguments(tmp_path)
    (tmp_path / "compare.json").write_text("{")
    with pytest.raises(BenchError, match="is damaged"):
        saved_arguments(tmp_path)


@pytest.mark.parametrize(
    ("beside", "named"),
    [
        (["--repeats", "3", "--json"], "--repeats, --json"),
        (["--scale=2"], "--scale"),
        (["--resume", "b"], "another one"),
    ],
)
def test_an_option_beside_resume_is_refused_by_name(beside: list[str], named: str) -> None:
    result = CliRunner().invoke(cli, ["bench", "compare", "--resume", "a", *beside])
    assert (result.exit_code, f"goes alone, not with {named}:" in result.stderr) == (2, True)


def test_loads_are_sessions_at_a_time_or_a_rate() -> None:
    assert loads_of("8,1,1", None) == LOADS
    assert loads_of(None, "0.5") == (LoadLevel("rate", 0.5),)
    assert loads_of(None, None) == (LoadLevel("concurrency", 4),)
    assert loads_of("8,2", "0.5") == (LoadLevel("limit", 2, 0.5), LoadLevel("limit", 8, 0.5))


@pytest.mark.parametrize("text", ["", "0", "1,,2", "-1", "one", "1.5"])
def test_numbers_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--modules"):
        numbers("--modules", text, int)


def test_systems_are_named_once_and_known() -> None:
    assert started_names((), ()) == ("shared", "disaggregated")
    assert started_names((), ("x=http://h",)) == ()
    assert started_names(("colocated", "shared", "shared"), ()) == ("colocated", "shared")
    with pytest.raises(UsageError, match="--system magic: there are shared"):
        started_names(("magic",), ())


@pytest.mark.parametrize(
    ("against", "message"),
    [(("url",), "give NAME=URL"), (("a=http://h", "a=http://i"), "each name once"), (("a=h",), "--url h")],
)
def test_urls_are_named(against: tuple[str, ...], message: str) -> None:
    def no_spec(zoo: Path, modules: tuple[str, ...]) -> object:
        raise AssertionError

    with pytest.raises(UsageError, match=message):
        systems_of((), against, ("math",), None, no_spec, None)  # type: ignore[arg-type]


def test_one_pool_is_a_system_and_no_transfer_of_all() -> None:
    assert started_names(("one-pool", "shared"), ()) == ("one-pool", "shared")
    result = CliRunner().invoke(cli, ["bench", "compare", "--transfer", "shared", "--models", "a"])
    assert (result.exit_code, "--system one-pool" in result.stderr) == (2, True)
