"""What a process and its descendants use."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class CpuUse:
    """CPU over a stretch of time, in % of one core: of the tree, and of everything else on the machine."""

    tree: float
    others: float


def tree(pid: int) -> list[psutil.Process]:
    """The process and all its descendants; empty when it has gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_use(pid: int, seconds: float) -> CpuUse:
    """Measure for `seconds`. Processes that come or go meanwhile are not counted in the tree."""
    processes = tree(pid)
    before, system_before, started = _cpu_seconds(processes), _system_seconds(), time.monotonic()
    time.sleep(seconds)
    after, system_after, elapsed = _cpu_seconds(processes), _system_seconds(), time.monotonic() - started
    used = sum(after[pid] - before[pid] for pid in after.keys() & before.keys())
    others = max(0.0, system_after - system_before - used)
    return CpuUse(100 * used / elapsed, 100 * others / elapsed)


def pss_bytes(pid: int) -> int:
    """Memory of the tree, with each shared page counted once (proportional set sizes)."""
    total = 0
    for process in tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
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
