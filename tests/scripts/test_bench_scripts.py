"""What the benchmark scripts ask of `psserve bench compare` is what that understands."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from psserve.cli.bench_compare import command

SCRIPTS = Path(__file__).parents[2] / "scripts"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script, imported as Python runs it: with its own folder first on the path."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module(name)


@pytest.mark.parametrize("workload", ["reflexion", "react"])
def test_the_cpu_table(workload: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bench_cpu = script("bench_cpu", monkeypatch)
    options = bench_cpu.parse(["--workload", workload, "--modules", "2"])
    given = command.make_context("compare", bench_cpu.new_comparison(options, tmp_path, tmp_path)).params
    assert given["systems"] == ("shared", "disaggregated", "colocated", "single")
    assert given["kv_tokens"] == 4 * bench_cpu.POOL
    assert given["workload"] == workload


def test_the_gpu_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gpu_bench = script("gpu_bench", monkeypatch)
    given = command.make_context("compare", gpu_bench.new_comparison(gpu_bench.parse([]), tmp_path, tmp_path, 4096))
    assert given.params["systems"] == ("shared", "disaggregated", "colocated")
    assert given.params["kv_tokens"] == 4096


@pytest.mark.parametrize(("gib", "fits"), [(80, True), (8, False)])
def test_the_gpus_kv_cache_is_what_the_servers_leave(
    gib: int, fits: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from psserve.errors import PlanError
    from psserve.zoo.synthetic.zoo import build_zoo
    from tests.fleet.planning import gpus

    gpu_bench = script("gpu_bench", monkeypatch)
    zoo = build_zoo(tmp_path / "zoo", modules=["m0"])
    monkeypatch.setattr("psserve.fleet.plan.devices.detect", lambda: gpus(1, gib))
    options = gpu_bench.parse(["--modules", "4"])
    if fits:
        assert gpu_bench.kv_tokens(zoo.path, options) > 8 * gpu_bench.SMALLEST_POOL
    else:
        with pytest.raises(PlanError, match=r"8 servers of the shape .* do not fit into 8 GiB"):
            gpu_bench.kv_tokens(zoo.path, options)


def test_processes_of_one_kind_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    by_kind = script("bench_cpu", monkeypatch).by_kind
    seconds = {"prefill-0": 2.0, "decode-math-0": 1.0, "decode-code-0": 0.5, "router": 0.25}
    assert by_kind(seconds) == {"prefill": 2.0, "decode": 1.5, "front": 0.25}
    assert by_kind({"server-math": 1.0, "front": 0.5}) == {"prefill_and_decode": 1.0, "front": 0.5}
