"""Trainings as forks of one process that has imported what they need, which takes longer than small trainings do.

Each has the environment that torchrun gives its processes, but no torchrun.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from tests.ports import own_ports
from tests.zoo import killing

CONTEXT = multiprocessing.get_context("forkserver")
IMPORTED = [
    *("psserve.cli.main", "psserve.training.finetune", "tests.training.on_cpu", "tests.training.ranks"),
    *killing.IMPORTED,
]
"""If it does not run yet: one serves all tests of a process, also those that kill changes of a zoo."""


def start_ranks(
    program: str, arguments: Sequence[str], env: Mapping[str, str], processes: int, log: Path
) -> list[BaseProcess]:
    """`python -m program arguments` in so many processes that work together.

    `log` gets what they write on standard error.
    """
    CONTEXT.set_forkserver_preload(IMPORTED)
    world = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(own_ports(1)[0])}
    log.touch()
    ranks: list[BaseProcess] = []
    for rank in range(processes):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), **world} if processes > 1 else {}
        ranks.append(CONTEXT.Process(target=_run, args=(program, list(arguments), {**env, **own}, log)))
    for process in ranks:
        process.start()
    return ranks


def ends_of(ranks: Sequence[BaseProcess], within_s: float) -> list[int | None]:
    """Wait for their ends. Returns their exit statuses; None of one that had to be killed."""
    statuses = []
    for process in ranks:
        process.join(within_s)
        statuses.append(process.exitcode)
        process.kill()
    return statuses


def _run(program: str, arguments: list[str], env: dict[str, str], log: Path) -> None:
    os.environ.update(env)
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), 2)
    torch.set_num_threads(1)
    sys.argv = [program, *arguments]
    runpy.run_module(program, run_name="__main__", alter_sys=True)
