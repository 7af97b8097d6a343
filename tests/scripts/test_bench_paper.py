"""What the script of the papers' workloads asks for, and the sizes that follow from the lengths."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psserve.bench.result import append_result
from psserve.cli.bench_compare import command
from tests.bench.report.results import line

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("bench_paper")


def asked(script: Any, *arguments: str) -> dict[str, Any]:
    """What `psserve bench compare` makes of the script's arguments."""
    given = script.new_comparison(script.parse(list(arguments)), Path("zoo"), Path("out"))
    return dict(command.make_context("compare", given).params)


@pytest.mark.parametrize("workload", ["four-agents-react", "four-agents-reflexion"])
@pytest.mark.parametrize("modules", [4, 8])
def test_four_agents_arrive_and_each_limit_is_tried(script: Any, workload: str, modules: int) -> None:
    given = asked(script, "--workload", workload, "--modules", str(modules))
    assert given["systems"] == ("one-pool", "shared", "disaggregated")
    assert (given["rate"], given["concurrency"]) == ("1", "5,12")
    assert (given["workload"], given["scale"], given["output_tokens"]) == (workload, 0.25, "32")


def test_prefill_and_decode_servers_share_no_core_as_they_share_no_gpu_in_the_paper(script: Any) -> None:
    assert asked(script)["cores_by_role"]
    assert not asked(script, "--all-cores")["cores_by_role"]
    assert not asked(script, "--workload", "icarus", "--rate", "1")["cores_by_role"]


def test_the_baselines_pools_hold_the_sessions_that_the_rule_says(script: Any) -> None:
    options = script.parse([])
    context = script.longest_context(options)
    assert context == 432 + 12 * (156 + 8)
    assert script.kv_tokens(options) // 8 == pytest.approx(4 * context, abs=16)
    assert asked(script)["context_length"] >= 1.1 * context


def test_icarus_gets_the_baselines_peak_rate_and_no_limit(script: Any) -> None:
    assert script.parse(["--workload", "icarus"]).adapters
    given = asked(script, "--workload", "icarus", "--rate", "0.75")
    assert (given["systems"], given["rate"], given["concurrency"]) == (("shared", "lora"), "0.75", None)
    assert (given["sessions"], given["output_tokens"]) == (40, "50~0.5")


def test_the_peak_is_what_whole_runs_told(script: Any) -> None:
    def line(at: int, rate: float, partial: bool = False) -> dict[str, Any]:
        told = {"load": {"concurrency": at}, "sessions": {"session_throughput": rate}, "partial": partial}
        return {"psserve": told}

    assert script.peak_rates([line(4, 0.5), line(12, 0.7), line(24, 9.0, partial=True)]) == {"4": 0.5, "12": 0.7}


class Comparisons:
    """`psserve bench compare`: in each folder a new one ends as it is told to, one that goes on ends well."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.interrupted = ""

    def __call__(self, arguments: list[str], within_s: float | None = None) -> int:
        self.calls.append(arguments)
        resumed = arguments[0] == "--resume"
        folder = Path(arguments[1] if resumed else arguments[arguments.index("--out") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "compare.json").touch()
        cut = folder.name == self.interrupted and not resumed
        run = line("lora", 2.0, concurrency=12, partial=cut)
        run["psserve"]["counters"] = None
        append_result(folder / "results.jsonl", run)
        (folder / "report.json").write_text('{"ratios": {}}')
        return int(cut)


@pytest.fixture
def icarus(script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """The script for ICaRus: its further arguments -> the result's document."""
    monkeypatch.setattr(script, "experiment_zoo", lambda options: tmp_path / "zoo")

    def ran(*arguments: str) -> Any:
        where = ("--work", str(tmp_path / "work"), "--out", str(tmp_path / "out.json"))
        monkeypatch.setattr(sys, "argv", ["bench_paper.py", "--workload", "icarus", *where, *arguments])
        script.main()
        return json.loads((tmp_path / "out.json").read_text())

    return ran


def test_the_baselines_peak_is_kept_when_a_comparison_goes_on(
    script: Any, icarus: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = Comparisons()
    compare.interrupted = "icarus-8-adapters"
    monkeypatch.setattr(script, "compare", compare)
    assert icarus("--sessions", "10")["baseline_peak"] == {"12": 0.5}
    assert icarus("--resume")["baseline_peak"] == {"12": 0.5}
    assert [Path(arguments[-1]).name for arguments in compare.calls[2:]] == ["peak", "icarus-8-adapters"]


def test_a_peak_search_that_was_interrupted_goes_on_and_the_comparison_begins_as_it_was_asked_for(
    script: Any, icarus: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = Comparisons()
    compare.interrupted = "peak"
    monkeypatch.setattr(script, "compare", compare)
    with pytest.raises(SystemExit, match="go on with --resume"):
        icarus("--sessions", "10")
    assert icarus("--resume")["baseline_peak"] == {"12": 0.5}
    searched, begun = compare.calls[1:]
    assert (searched[0], Path(searched[1]).name) == ("--resume", "peak")
    given = command.make_context("compare", begun).params
    assert (given["rate"], given["sessions"], given["out"].name) == ("0.5", 10, "icarus-8-adapters")


def test_what_goes_on_may_take_other_minutes_and_nothing_else(
    script: Any, icarus: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "compare", Comparisons())
    icarus("--rate", "1")
    assert icarus("--resume", "--minutes", "3")["command"].endswith("--resume --minutes 3")
    with pytest.raises(SystemExit, match="leave out --rate, --all-cores"):
        icarus("--resume", "--rate", "2", "--all-cores")
