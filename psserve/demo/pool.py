"""Trainings side by side: small models train faster in a process a core than one after another on several threads."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, redirect_stderr
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch

from psserve.training.packages import quiet_packages

Argument = TypeVar("Argument")
Result = TypeVar("Result")

FORKING = multiprocessing.get_context("forkserver")  # a fork of this process would inherit PyTorch's threads
IMPORTED = ["psserve.demo.demo_zoo", "psserve.training.finetune"]
"""What is imported once for all processes: it takes longer than a small training."""


def side_by_side(
    job: Callable[[Argument], Result], arguments: Iterable[Argument], processes: int
) -> Iterator[tuple[Argument, Result]]:
    """Do the job for each argument, in processes that share this one's threads. Each result comes as it is ready.

    A process is given a job when it has none, so that after Ctrl-C or an error nothing new begins. An error of one job
    ends the others, too; a training that is ended saves a checkpoint.
    """
    waiting = iter(arguments)
    threads = max(1, torch.get_num_threads() // processes)
    FORKING.set_forkserver_preload(IMPORTED)
    with ProcessPoolExecutor(processes, FORKING, initializer=prepare_process, initargs=(threads,)) as pool:
        running = {pool.submit(job, argument): argument for argument in islice(waiting, processes)}
        while running:
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(done), result_or_end(done)
                running |= {pool.submit(job, argument): argument for argument in islice(waiting, 1)}


def result_or_end(done: Future[Result]) -> Result:
    """A job's result; its error also ends the jobs in all other processes."""
    try:
        return done.result()
    except Exception:  # whatever it is, nothing will be made of the others' results
        for process in multiprocessing.active_children():
            process.terminate()
        raise


def prepare_process(threads: int) -> None:
    """Before a process's first job."""
    quiet_packages()
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the job, not a process that others wait for


@contextmanager
def progress_in(log: Path) -> Iterator[None]:
    """What a training would write to stderr goes to the end of the file `log`."""
    with log.open("a", buffering=1) as file, redirect_stderr(file):
        yield


def all_cores() -> int:
    """How many processes of one thread each keep this machine busy."""
    return len(os.sched_getaffinity(0))
