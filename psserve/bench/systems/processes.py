"""What a process and its descendants use: CPU, main memory, and GPU memory as `nvidia-smi` tells it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from psserve.fleet.run.memory import family, gpu_memory, main_memory, of_family


@dataclass(frozen=True)
class CpuUse:
    """CPU over a stretch of time, in % of one core: of the tree, and of everything else but this process."""

    tree: float
    others: float


@dataclass(frozen=True)
class _Clocks:
    """Seconds: wall, CPU by process of the tree, CPU of this process, CPU of the whole machine."""

    time: float
    tree: dict[int, float]
    own: float
    system: float


class CpuMeter:
    """Starts to measure a tree's CPU when it is made. Processes that come or go later are not counted in the tree."""

    def __init__(self, pid: int) -> None:
        self._processes = family(pid)
        self._started = self._now()

    def read(self) -> CpuUse:
        """The use since the start. This process counts neither as the tree's nor as the others'."""
        before, now = self._started, self._now()
        elapsed = max(now.time, before.time + 1e-9) - before.time
        used = sum(now.tree[pid] - before.tree[pid] for pid in now.tree.keys() & before.tree.keys())
        others = max(0.0, now.system - before.system - used - (now.own - before.own))
        return CpuUse(100 * used / elapsed, 100 * others / elapsed)

    def _now(self) -> _Clocks:
        return _Clocks(time.monotonic(), _cpu_seconds(self._processes), time.process_time(), _system_seconds())


def pss_bytes(pid: int) -> int:
    """Memory of the tree, with each shared page counted once (proportional set sizes)."""
    return main_memory(family(pid)) or 0


def cpu_seconds(pid: int) -> float:
    """CPU time that the tree's processes have used, those that have ended and were waited for included."""
    total = 0.0
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _cpu_seconds(processes: list[psutil.Process]) -> dict[int, float]:
    used: dict[int, float] = {}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used[process.pid] = times.user + times.system
    return used


def _system_seconds() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def device_bytes(pids: Iterable[int]) -> int | None:
    """GPU memory of these processes and their descendants; None where nvidia-smi is missing or knows none of them.

    In a container nvidia-smi may see other process ids than we do.
    """
    return of_family((process for pid in pids for process in family(pid)), gpu_memory(timeout_s=30))
