"""Which devices this machine has and how much memory is free, without importing torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import psutil

from psserve.errors import PlanError
from psserve.fleet.options.options import DeviceChoice

_QUERY = "index,uuid,name,memory.total,memory.free"
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Gpu:
    """One GPU as servers see it: `index` counts visible GPUs only (CUDA_VISIBLE_DEVICES)."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Machine:
    """The cores, memory and GPUs that this machine offers a fleet."""

    cores: int
    total_bytes: int
    """Main memory."""
    available_bytes: int
    gpus: tuple[Gpu, ...]


def detect(environ: Mapping[str, str] = os.environ) -> Machine:
    """This machine, with GPUs asked from `nvidia-smi` when it is there."""
    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0))
    return Machine(cores, memory.total, memory.available, _gpus(environ.get("CUDA_VISIBLE_DEVICES")))


def choose(machine: Machine, wanted: DeviceChoice) -> Literal["cuda", "cpu"]:
    """The device kind to serve on.

    Raises:
        PlanError: `cuda` was asked for and no GPU is visible.
    """
    if wanted == "cuda" and not machine.gpus:
        raise PlanError("--device cuda: no NVIDIA GPU is visible here (nvidia-smi lists none); use --device cpu")
    if wanted == "auto":
        return "cuda" if machine.gpus else "cpu"
    return wanted


def parse_gpus(listing: str, visible: str | None) -> tuple[Gpu, ...]:
    """GPUs from nvidia-smi's CSV, in CUDA's order: `visible` is CUDA_VISIBLE_DEVICES (None: all)."""
    rows = [[cell.strip() for cell in line.split(",")] for line in listing.splitlines() if line.strip()]
    rows = [row for row in rows if len(row) == 5 and row[3].isdigit() and row[4].isdigit()]
    if visible is not None:
        rows = _visible(rows, visible)
    return tuple(Gpu(i, row[2], int(row[3]) * _MIB, int(row[4]) * _MIB) for i, row in enumerate(rows))


def _visible(rows: Sequence[list[str]], visible: str) -> list[list[str]]:
    chosen: list[list[str]] = []
    for entry in visible.split(","):
        match = [row for row in rows if entry.strip() and (row[0] == entry.strip() or row[1].startswith(entry.strip()))]
        if not match:  # CUDA too stops at the first entry that it does not know
            break
        chosen.append(match[0])
    return chosen


def _gpus(visible: str | None) -> tuple[Gpu, ...]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    command = [tool, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_gpus(answer.stdout, visible) if answer.returncode == 0 else ()
