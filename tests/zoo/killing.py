"""Killing a change of the zoo at every step that it takes on disk, which leaves no moment to chance."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from psserve.errors import ModuleExists
from psserve.zoo import Zoo
from psserve.zoo.disk import transactions as staging
from psserve.zoo.disk.manifest import EvaluationRecord

CONTEXT = multiprocessing.get_context("forkserver")  # a fork of this process would inherit PyTorch's threads
IMPORTED = [
    "psserve.zoo.adding.importing",
    "transformers.models.auto.configuration_auto",
    "transformers.models.qwen3.configuration_qwen3",
    "safetensors.torch",
    "tests.zoo.killing",
]
"""What the process that is forked from imports first, if it does not run yet: one serves all tests of a process."""
STEPS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"}
"""Audit events that precede a change on disk; beside them, files that are opened to be written."""
EVALUATION = EvaluationRecord(
    date=1, scorer="exact", data_hash="0" * 64, items=4, right=3, max_tokens=16, how="reference"
)


def kill_at(step: int, change: Callable[[Path], object], zoo: Path) -> bool:
    """Run `change(zoo)` in a process that is killed by SIGKILL before its step number `step` on disk.

    Returns whether it got that far: False means that the change was made completely.
    """
    CONTEXT.set_forkserver_preload(IMPORTED)
    process = CONTEXT.Process(target=run_until, args=(step, change, zoo))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def run_until(step: int, change: Callable[[Path], object], zoo: Path) -> None:
    """Run `change(zoo)`, and be killed before step number `step`."""
    steps = itertools.count()

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if (event in STEPS or opens_for_writing(event, arguments, zoo)) and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    change(zoo)


def opens_for_writing(event: str, arguments: tuple[object, ...], zoo: Path) -> bool:
    """Whether the event is the opening, to write, of a file in the zoo."""
    if event != "open":
        return False
    path, _, flags = arguments
    writing = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
    return bool(writing) and isinstance(path, str | os.PathLike) and Path(path).is_relative_to(zoo)


# Changes to be killed. They are here since a process that is to make one imports the module that it comes from.


def source_of(zoo: Path) -> Path:
    """The checkpoint that the tests here add, beside the zoo."""
    return zoo.parent / "checkpoint"


def add_math(zoo: Path) -> None:
    Zoo.open(zoo).add("math", source_of(zoo), allow_naive=True, store="delta")


def replace_alpha(zoo: Path) -> None:
    Zoo.open(zoo).add("alpha", source_of(zoo), allow_naive=True, replace=True)


def replace_alpha_without_exchange(zoo: Path) -> None:
    """As on a file system that cannot exchange two directories in one step."""
    staging.exchange = lambda one, other: False
    replace_alpha(zoo)


def roll_alpha_back(zoo: Path) -> None:
    Zoo.open(zoo).roll_back("alpha")


def roll_alpha_back_without_exchange(zoo: Path) -> None:
    staging.exchange = lambda one, other: False
    roll_alpha_back(zoo)


def add_adapter(zoo: Path) -> None:
    Zoo.open(zoo).add("math", source_of(zoo), allow_naive=True, store="adapter")


def replace_adapter(zoo: Path) -> None:
    Zoo.open(zoo).add("math", source_of(zoo), allow_naive=True, store="adapter", replace=True)


def try_to_add(zoo: Path) -> None:
    """Exit with 3 if the name is taken."""
    try:
        add_math(zoo)
    except ModuleExists:
        raise SystemExit(3) from None


def remove_alpha(zoo: Path) -> None:
    Zoo.open(zoo).remove("alpha")


def rename_alpha(zoo: Path) -> None:
    Zoo.open(zoo).rename("alpha", "omega")


def record_for_alpha(zoo: Path) -> None:
    Zoo.open(zoo).record_evaluation("alpha", EVALUATION)
