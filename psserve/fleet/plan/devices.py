"""Which devices this machine has, how much memory is free, and whether servers could run there at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from psserve.errors import PlanError
from psserve.fleet.options.options import DeviceChoice
from psserve.fleet.plan.nvidia import Gpu, Torch, list_gpus, torch_build

LEAST_DRIVER = {"12": 525, "13": 580}
"""CUDA's major release -> the oldest driver for what is built with it (NVIDIA's CUDA compatibility table)."""
LEAST_CAPABILITY = (7, 5)
"""SGLang's kernels and flashinfer's are built from this architecture on, and CUDA 13 compiles for no older one."""
ON_CPU = "or serve on the CPU: --device cpu"


@dataclass(frozen=True)
class Machine:
    """The cores, memory and GPUs that this machine offers a fleet."""

    cores: int
    total_bytes: int
    """Main memory."""
    available_bytes: int
    gpus: tuple[Gpu, ...]
    unusable: tuple[str, ...] = ()
    """GPUs that are there and that no server can be planned on: which, and why."""
    driver: str | None = None
    """Version of the NVIDIA driver; None: unknown, as where it is not this machine that is planned for."""
    rdma: bool = False
    """Whether there is a network adapter for RDMA."""
    torch: Torch | None = None
    """The installed torch; None: none, or it is not this machine that is planned for."""


def detect(environ: Mapping[str, str] = os.environ) -> Machine:
    """This machine, with GPUs asked from `nvidia-smi` when it is there."""
    memory = psutil.virtual_memory()
    found = list_gpus(environ.get("CUDA_VISIBLE_DEVICES"))
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        total_bytes=memory.total,
        available_bytes=memory.available,
        gpus=found.gpus,
        unusable=found.unusable,
        driver=found.driver,
        rdma=has_rdma(),
        torch=torch_build(),
    )


def has_rdma(adapters: Path = Path("/sys/class/infiniband")) -> bool:
    """Whether the kernel knows an adapter for RDMA."""
    return adapters.is_dir() and any(adapters.iterdir())


def choose(machine: Machine, wanted: DeviceChoice) -> Literal["cuda", "cpu"]:
    """The device kind to serve on. GPUs that are there and cannot be used are never passed over in silence.

    Raises:
        PlanError: `cuda` was asked for and no GPU is visible, or servers could not run on those that are.
    """
    if wanted == "cpu":
        return "cpu"
    if machine.unusable:
        raise PlanError(f"{'; '.join(machine.unusable)}: choose others with CUDA_VISIBLE_DEVICES, {ON_CPU}")
    if not machine.gpus:
        if wanted == "cuda":
            raise PlanError("--device cuda: no NVIDIA GPU is visible here (nvidia-smi lists none); use --device cpu")
        return "cpu"
    for found, advice in why_no_cuda(machine):
        raise PlanError(f"{found}: {advice}, {ON_CPU}")
    return "cuda"


def why_no_cuda(machine: Machine) -> list[tuple[str, str]]:
    """Why no server could start on this machine's GPUs: what was found, and what to do. Empty: nothing is known."""
    return [*_driver_too_old(machine), *_torch_without_cuda(machine), *_gpus_too_old(machine), *_prohibited(machine)]


def least_driver(torch: Torch | None) -> int:
    """The oldest driver's major version for this build of torch."""
    release = (torch.cuda or "").partition(".")[0] if torch else ""
    return LEAST_DRIVER.get(release, max(LEAST_DRIVER.values()))


def _driver_too_old(machine: Machine) -> list[tuple[str, str]]:
    major = (machine.driver or "").partition(".")[0]
    least = least_driver(machine.torch)
    if not major.isdigit() or int(major) >= least:
        return []
    built = f"CUDA {machine.torch.cuda}" if machine.torch and machine.torch.cuda else "CUDA 13"
    return [(f"the NVIDIA driver is {machine.driver}, and {built} needs {least} or newer", "install a newer driver")]


def _torch_without_cuda(machine: Machine) -> list[tuple[str, str]]:
    if not machine.gpus or machine.torch is None or machine.torch.cuda is not None:
        return []
    found = f"torch {machine.torch.version} is a build for CPU and cannot use {machine.gpus[0].name}"
    return [(found, "run make clean, then make setup DEVICE=gpu")]


def _gpus_too_old(machine: Machine) -> list[tuple[str, str]]:
    least = "sm_{}{}".format(*LEAST_CAPABILITY)
    return [
        (
            f"GPU {gpu.index} ({gpu.name}) is sm_{gpu.capability[0]}{gpu.capability[1]}, and SGLang needs {least}",
            "choose others with CUDA_VISIBLE_DEVICES",
        )
        for gpu in machine.gpus
        if gpu.capability is not None and gpu.capability < LEAST_CAPABILITY
    ]


def _prohibited(machine: Machine) -> list[tuple[str, str]]:
    return [
        (
            f"GPU {gpu.index} ({gpu.name}) has the compute mode Prohibited: no program may use it",
            f"run nvidia-smi -i {gpu.index} -c DEFAULT",
        )
        for gpu in machine.gpus
        if gpu.compute_mode == "Prohibited"
    ]
