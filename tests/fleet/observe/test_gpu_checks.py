"""What `psserve doctor` says of a machine with NVIDIA GPUs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from psserve.cli.doctor import command
from psserve.engine.cuda.toolkit import assemble
from psserve.fleet.observe import gpu_checks
from psserve.fleet.observe.gpu_checks import check_gpus, check_sharing, find_nvcc, mps_runs
from psserve.fleet.plan.nvidia import Gpu, Torch
from tests.engine.cuda.wheels import lay_wheels
from tests.fleet.fake_zoo import FakeBase, FakeZoo
from tests.fleet.nvidia_smi import H100, put_on_path
from tests.fleet.planning import CPU, gpus, plan

SOUND = replace(gpus(1), driver="580.65.06", torch=Torch("2.13.0+cu130", "13.0"))


def with_card(**changes: Any) -> Any:
    return replace(SOUND, gpus=(replace(SOUND.gpus[0], **changes),))


def nvcc_in(folder: Path, said: str) -> Path:
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(f"#!/bin/sh\necho '{said}'\n")
    nvcc.chmod(0o755)
    return nvcc


def toolkit_in(folder: Path, compiler: str, headers: str) -> Path:
    assemble(lay_wheels(folder, compiler, headers), folder / "toolkit")
    return folder / "toolkit"


def test_a_machine_without_gpus_is_not_asked_for_compilers() -> None:
    assert check_gpus(CPU, {}) == []


def test_driver_and_architecture_are_said() -> None:
    (finding,) = gpu_checks.check_cuda(with_card(capability=(9, 0)))
    assert (finding.level, finding.found) == ("ok", "driver 580.65.06 (at least 580), sm_90")


def test_what_launch_refuses_fails_here_too() -> None:
    machine = replace(with_card(capability=(6, 1), compute_mode="Prohibited"), driver="535.1")
    findings = gpu_checks.check_cuda(machine)
    assert [finding.level for finding in findings] == ["fail"] * 3
    assert all(finding.advice for finding in findings)


@pytest.mark.parametrize(
    ("mode", "mps", "levels"),
    [("Default", False, []), ("Exclusive_Process", False, ["warn"]), ("Exclusive_Process", True, [])],
)
def test_a_gpu_for_one_process_cannot_be_shared_but_through_mps(mode: str, mps: bool, levels: list[str]) -> None:
    findings = gpu_checks.check_compute_modes(with_card(compute_mode=mode), mps)
    assert [finding.level for finding in findings] == levels


@pytest.mark.parametrize(
    ("environ", "level", "found"),
    [
        ({}, "ok", "/usr/bin/c++"),
        ({"CXX": "clang++"}, "fail", "no clang++ is on PATH"),
    ],
)
def test_the_compiler_is_the_one_that_kernels_are_built_with(environ: dict[str, str], level: str, found: str) -> None:
    finding = gpu_checks.check_compiler(environ, {"c++": "/usr/bin/c++"}.get)
    assert (finding.level, finding.found) == (level, found)


def test_headers_of_python_are_looked_for(tmp_path: Path) -> None:
    assert gpu_checks.check_python_headers(tmp_path).level == "fail"
    (tmp_path / "Python.h").touch()
    assert gpu_checks.check_python_headers(tmp_path).level == "ok"


def test_nvcc_is_that_of_cuda_home_or_on_path(tmp_path: Path) -> None:
    first, second = nvcc_in(tmp_path / "first", ""), nvcc_in(tmp_path / "second", "")
    path = {"PATH": str(second.parent)}
    assert find_nvcc({"CUDA_HOME": str(tmp_path / "first"), **path}) == first
    assert find_nvcc(path) == second
    assert find_nvcc({"CUDA_HOME": str(tmp_path / "none"), **path}) is None


@pytest.mark.parametrize(("release", "level"), [("13.0", "ok"), ("13.2", "ok"), ("12.8", "fail")])
def test_nvcc_must_be_of_torchs_cuda(tmp_path: Path, release: str, level: str) -> None:
    finding = gpu_checks.check_nvcc(toolkit_in(tmp_path, release, release) / "bin/nvcc", SOUND.torch)
    assert (finding.level, f"release {release}" in finding.found) == (level, True)


def test_a_compiler_beside_older_headers_is_a_failure(tmp_path: Path) -> None:
    finding = gpu_checks.check_nvcc(toolkit_in(tmp_path, "13.5", "13.0") / "bin/nvcc", SOUND.torch)
    assert finding.level == "fail"
    assert finding.found.endswith("release 13.5; the headers beside it are those of 13.0")


def test_a_compiler_without_the_rest_of_a_toolkit_is_a_failure(tmp_path: Path) -> None:
    nvcc = nvcc_in(tmp_path, "Cuda compilation tools, release 13.0, V13.0.1")
    finding = gpu_checks.check_nvcc(nvcc, SOUND.torch)
    assert (finding.level, "lib64/libcudart.so" in finding.found) == ("fail", True)


def test_what_is_no_compiler_is_a_failure(tmp_path: Path) -> None:
    finding = gpu_checks.check_nvcc(nvcc_in(tmp_path, "hello"), SOUND.torch)
    assert (finding.level, "does not tell its release" in finding.found) == ("fail", True)


def test_a_missing_nvcc_is_a_failure() -> None:
    finding = gpu_checks.check_nvcc(None, SOUND.torch)
    assert (finding.level, "CUDA 13.0" in finding.advice) == ("fail", True)


@pytest.mark.parametrize(
    ("capability", "packages", "levels"),
    [((10, 0), set(), ["warn"]), ((10, 3), {"flashinfer_cubin"}, []), ((12, 0), set(), []), ((9, 0), set(), [])],
)
def test_blackwell_needs_kernels_from_a_package_or_a_network(
    capability: tuple[int, int], packages: set[str], levels: list[str]
) -> None:
    findings = gpu_checks.check_cubins(with_card(capability=capability), packages.__contains__)
    assert [finding.level for finding in findings] == levels


def test_mps_is_found_by_its_pipe(tmp_path: Path) -> None:
    environ = {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}
    assert not mps_runs(environ)
    (tmp_path / "control").touch()
    assert mps_runs(environ)


def test_mps_is_suggested_where_servers_share_a_gpu(tmp_path: Path) -> None:
    zoo: Any = FakeZoo(tmp_path, FakeBase(tmp_path / "base"))
    shared, apart = plan(zoo, gpus(1)), plan(zoo, gpus(3))
    (without,) = check_sharing(shared, mps=False)
    assert (without.level, without.found) == ("warn", "up to 3 servers share a GPU and take turns on it")
    assert [finding.level for finding in check_sharing(shared, mps=True)] == ["ok"]
    assert check_sharing(apart, mps=False) == []


def test_doctor_asks_nvidia_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_on_path(monkeypatch, tmp_path / "bin", H100.replace("580.65.06", "535.1"))
    report = json.loads(CliRunner().invoke(command, ["--zoo", str(tmp_path), "--json"]).stdout)
    assert "driver is 535.1" in next(check["found"] for check in report["checks"] if check["name"] == "CUDA")
    assert {"c++", "Python.h", "nvcc"} <= {check["name"] for check in report["checks"]}


def test_a_gpu_of_another_make_is_named_by_its_index() -> None:
    two = replace(SOUND, gpus=(*SOUND.gpus, Gpu(1, "Tesla P100", 1, 1, (6, 0))))
    assert [finding.found for finding in gpu_checks.check_cuda(two)] == [
        "GPU 1 (Tesla P100) is sm_60, and SGLang needs sm_75"
    ]
