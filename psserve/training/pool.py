"""Trainings side by side: small models train faster in a process a core than one after another on several threads."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import torch

from psserve.training.packages import quiet_packages


def training_pool(processes: int) -> ProcessPoolExecutor:
    """Processes that share this one's threads."""
    threads = max(1, torch.get_num_threads() // processes)
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, spawn, initializer=prepare_process, initargs=(threads,))


def prepare_process(threads: int) -> None:
    """Before a process's first training."""
    quiet_packages()
    torch.set_num_threads(threads)


@contextmanager
def progress_in(log: Path) -> Iterator[None]:
    """What a training would write to stderr goes to the end of the file `log`."""
    with log.open("a", buffering=1) as file, redirect_stderr(file):
        yield


def all_cores() -> int:
    """How many processes of one thread each keep this machine busy."""
    return len(os.sched_getaffinity(0))
