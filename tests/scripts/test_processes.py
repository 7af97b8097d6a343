from __future__ import annotations

import os
import subprocess
import sys

from scripts.measuring.processes import cpu_use, pss_bytes, tree


def test_the_tree_holds_children() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert {os.getpid(), child.pid} <= {process.pid for process in tree(os.getpid())}
    finally:
        child.kill()
        child.wait()


def test_a_process_that_has_gone_uses_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert (tree(child.pid), pss_bytes(child.pid), cpu_use(child.pid, 0.01).tree) == ([], 0, 0)


def test_memory_is_counted() -> None:
    assert pss_bytes(os.getpid()) > 2**20
