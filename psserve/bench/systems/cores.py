"""Which of a CPU's cores the servers of a system run on, where those that prefill and those that decode share none.

On GPUs nothing of the kind is needed: a server of the paper's prefills or decodes on a GPU of its own, and what one
kind saves the other cannot use. On a CPU all servers share all cores unless they are kept apart.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from psserve.bench.systems.system import SystemSpec, Target
from psserve.errors import UsageError
from psserve.fleet.plan.devices import Machine, choose
from psserve.fleet.run.memory import family


def check_cores(spec: SystemSpec, machine: Machine) -> None:
    """Raise UsageError where the cores cannot be dealt out as asked."""
    typed = [name for name, value in (("--cores-by-role", spec.cores_by_role), ("--threads", spec.threads)) if value]
    if typed and choose(machine, spec.device) != "cpu":
        raise UsageError(f"{typed[0]} is of servers on a CPU: on GPUs each has a device")
    if spec.cores_by_role and machine.cores < 2:
        raise UsageError("--cores-by-role: this machine has one core, which cannot be dealt out")


def keep_to_cores(target: Target) -> None:
    """Have prefill servers run on the first half of our cores, and decode servers on the others.

    Nothing changes where all servers do both. Threads that they start later inherit it.
    """
    if all(server.prefills for server in target.servers):
        return
    prefill, decode = halves(sorted(os.sched_getaffinity(0)))
    for server in target.servers:
        for process in family(target.pids[server.name]):
            _keep_to(process.pid, prefill if server.prefills else decode)


def halves(cores: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    """Cores of prefill servers, and of decode servers, which get the odd one."""
    middle = len(cores) // 2
    return cores[:middle], cores[middle:]


def _keep_to(pid: int, cores: Sequence[int]) -> None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it, or a thread of it, has just ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cores)
