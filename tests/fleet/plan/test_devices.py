"""What this machine offers, and whether servers could run on its GPUs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from psserve.errors import PlanError
from psserve.fleet.plan.devices import choose, detect, has_rdma, least_driver
from psserve.fleet.plan.nvidia import Torch
from tests.fleet.nvidia_smi import H100, put_on_path
from tests.fleet.planning import CPU, gpus

CUDA_13 = Torch("2.13.0+cu130", "13.0")


def test_this_machine_has_memory_and_cores() -> None:
    machine = detect({})
    assert machine.cores >= 1
    assert 0 < machine.available_bytes <= machine.total_bytes


def test_driver_and_torch_are_this_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_on_path(monkeypatch, tmp_path, H100)
    machine = detect({})
    assert machine.driver == "580.65.06"
    assert machine.torch is not None


def test_rdma_is_what_the_kernel_has_an_adapter_for(tmp_path: Path) -> None:
    assert not has_rdma(tmp_path / "none")
    assert not has_rdma(tmp_path)
    (tmp_path / "mlx5_0").mkdir()
    assert has_rdma(tmp_path)


def test_a_sound_machine_serves_on_its_gpus() -> None:
    assert choose(replace(gpus(1), driver="580.65.06", torch=CUDA_13), "auto") == "cuda"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"driver": "570.172.08", "torch": CUDA_13}, "driver is 570.172.08, and CUDA 13.0 needs 580 or newer: install"),
        ({"driver": "570.172.08"}, "driver is 570.172.08, and CUDA 13 needs 580 or newer: install a newer driver"),
        ({"torch": Torch("2.13.0+cpu", None)}, r"torch 2.13.0\+cpu is a build for CPU .* make setup DEVICE=gpu"),
        ({"unusable": ("GPU 0 (GB10): no memory",), "gpus": ()}, "GB10.*: choose others with CUDA_VISIBLE_DEVICES"),
        ({"gpus": (replace(gpus(1).gpus[0], capability=(7, 0)),)}, "GPU 0 .H100. is sm_70, and SGLang needs sm_75"),
        ({"gpus": (replace(gpus(1).gpus[0], compute_mode="Prohibited"),)}, "run nvidia-smi -i 0 -c DEFAULT"),
    ],
)
def test_gpus_on_which_nothing_could_start_are_refused(changes: dict[str, Any], message: str) -> None:
    machine = replace(gpus(1), **changes)
    for wanted in ("auto", "cuda"):
        with pytest.raises(PlanError, match=message) as refused:
            choose(machine, wanted)  # type: ignore[arg-type]
        assert str(refused.value).endswith("or serve on the CPU: --device cpu")
    assert choose(machine, "cpu") == "cpu"


def test_a_machine_without_gpus_serves_on_its_cpu_whatever_torch() -> None:
    assert choose(replace(CPU, torch=Torch("2.13.0+cpu", None)), "auto") == "cpu"


@pytest.mark.parametrize(("torch", "least"), [(None, 580), (CUDA_13, 580), (Torch("2.11.0+cu128", "12.8"), 525)])
def test_the_least_driver_is_that_of_torchs_cuda(torch: Torch | None, least: int) -> None:
    assert least_driver(torch) == least
