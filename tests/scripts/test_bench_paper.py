"""What the script of the papers' workloads asks for, and the sizes that follow from the lengths."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from psserve.cli.bench_compare import command

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


def test_what_was_interrupted_goes_on_as_it_was(script: Any) -> None:
    given = script.new_comparison(script.parse(["--resume", "--workload", "icarus"]), Path("zoo"), Path("/x/out"))
    assert given == ["--resume", "/x/out"]
