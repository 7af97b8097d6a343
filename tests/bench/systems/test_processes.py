from __future__ import annotations

import os
import subprocess
import sys

from psserve.bench.systems.processes import CpuMeter, pss_bytes
from psserve.fleet.run.memory import family


def test_the_tree_holds_children() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert {os.getpid(), child.pid} <= {process.pid for process in family(os.getpid())}
    finally:
        child.kill()
        child.wait()


def test_a_process_that_has_gone_uses_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert (family(child.pid), pss_bytes(child.pid), CpuMeter(child.pid).read().tree) == ([], 0, 0)


def test_memory_is_counted() -> None:
    assert pss_bytes(os.getpid()) > 2**20


def test_work_of_the_tree_is_measured() -> None:
    meter = CpuMeter(os.getpid())
    sum(i * i for i in range(3_000_000))
    assert meter.read().tree > 0
