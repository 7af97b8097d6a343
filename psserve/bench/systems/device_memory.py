"""How much GPU memory processes hold, as `nvidia-smi` tells it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable

from psserve.bench.systems.processes import tree

_MIB = 2**20
_QUERY = ("--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits")


def device_bytes(pids: Iterable[int]) -> int | None:
    """GPU memory of these processes and their descendants; None where nvidia-smi is missing or knows none of them.

    In a container nvidia-smi may see other process ids than we do.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        done = subprocess.run([tool, *_QUERY], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    ours = {process.pid for pid in pids for process in tree(pid)}
    return used_by(ours, done.stdout)


def used_by(pids: set[int], table: str) -> int | None:
    """The sum over the lines `pid, MiB` of `table` whose process is one of `pids`; None if none is."""
    rows = [line.split(",") for line in table.splitlines() if line.count(",") == 1]
    used = [int(size) for pid, size in rows if pid.strip().isdigit() and int(pid) in pids and size.strip().isdigit()]
    return sum(used) * _MIB if used else None
