"""Imports that are killed, at every step they take on disk and at random moments: nothing is lost, nothing is left."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from psserve.zoo import Zoo, serving_form
from psserve.zoo.disk.forms import FORMS
from psserve.zoo.disk.transactions import changing
from psserve.zoo.verify import verify

from .checkpoints.test_lora import make_adapter
from .killing import (
    CONTEXT,
    add_adapter,
    add_math,
    kill_at,
    replace_adapter,
    replace_alpha,
    replace_alpha_without_exchange,
    try_to_add,
)
from .test_changes import contents

MOMENTS = 20


def origins(zoo: Zoo) -> dict[str, str]:
    return {module.name: module.origin.rpartition("/")[2] for module in zoo.modules()}


def is_done(zoo: Path, before: dict[str, str], name: str) -> bool:
    """Whether the module `name` is the added one; if not, the zoo must be as before. Whole and clean it must be."""
    assert not list(verify(Zoo.open(zoo)))
    with changing(zoo):
        pass  # what every next command does first
    assert sorted(path.name for path in zoo.iterdir()) == [".lock", "base", "modules", "zoo.toml"]
    done = origins(Zoo.open(zoo)).get(name) == "checkpoint"
    assert done or contents(zoo) == before
    return done


@pytest.fixture
def pristine(zoo: Zoo, checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the zoo at `zoo.path`, to begin with again and again."""
    return shutil.copytree(zoo.path, tmp_path / "pristine")


@pytest.mark.slow
@pytest.mark.parametrize("replaced", [False, True])
def test_an_adapter_killed_at_any_step_is_done_or_undone(zoo: Zoo, tmp_path: Path, replaced: bool) -> None:
    if replaced:
        older = make_adapter(zoo.base.path, tmp_path / "older", target_modules=["v_proj"])
        zoo.add("math", older, allow_naive=True, store="adapter")
    make_adapter(zoo.base.path, tmp_path / "checkpoint", target_modules=["k_proj"])
    pristine = shutil.copytree(zoo.path, tmp_path / "pristine")
    change = replace_adapter if replaced else add_adapter
    outcomes = []
    killed = True
    while killed:
        restore(pristine, zoo.path)
        killed = kill_at(len(outcomes), change, zoo.path)
        assert not list(verify(zoo))
        with changing(zoo.path):
            pass
        modules = {module.name: module for module in zoo.modules()}
        outcomes.append("math" in modules and modules["math"].origin.split()[2].endswith("checkpoint"))
        assert outcomes[-1] or contents(zoo.path) == contents(pristine)
        assert {path.parent.name for path in (zoo.path / FORMS).glob("*/*/")} == modules.keys() - {"alpha", "beta"}
        if "math" in modules:
            assert list((zoo.path / FORMS / "math").glob("*/")) == [serving_form(zoo, modules["math"])]
    assert outcomes == sorted(outcomes)
    assert outcomes[-1]


def restore(pristine: Path, zoo: Path) -> None:
    """Make the zoo what it was."""
    shutil.rmtree(zoo)
    shutil.copytree(pristine, zoo)


@pytest.mark.parametrize(
    ("change", "name"), [(add_math, "math"), (replace_alpha, "alpha"), (replace_alpha_without_exchange, "alpha")]
)
def test_an_import_killed_at_any_step_is_done_or_undone(
    zoo: Zoo, pristine: Path, change: Callable[[Path], None], name: str
) -> None:
    before = contents(pristine)
    outcomes = []
    killed = True
    while killed:
        restore(pristine, zoo.path)
        killed = kill_at(len(outcomes), change, zoo.path)
        outcomes.append(is_done(zoo.path, before, name))
    assert outcomes == sorted(outcomes)  # undone up to some step, done from there on
    assert outcomes[-1]


def test_imports_killed_at_random_moments_are_done_or_undone(zoo: Zoo, pristine: Path) -> None:
    before = contents(pristine)
    moments = random.Random(0)
    longest = time_of(add_math, zoo.path)
    for number in range(MOMENTS):
        restore(pristine, zoo.path)
        change, name = [(add_math, "math"), (replace_alpha, "alpha")][number % 2]
        process = CONTEXT.Process(target=change, args=(zoo.path,))
        process.start()
        process.join(moments.uniform(0, longest))
        process.kill()
        process.join()
        is_done(zoo.path, before, name)


def time_of(change: Callable[[Path], None], zoo: Path) -> float:
    """Seconds that a change takes in a process of its own."""
    started = time.monotonic()
    process = CONTEXT.Process(target=change, args=(zoo,))
    process.start()
    process.join()
    return time.monotonic() - started


def test_of_two_imports_of_one_name_one_succeeds(zoo: Zoo, checkpoint: Path) -> None:
    processes = [CONTEXT.Process(target=try_to_add, args=(zoo.path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sorted(process.exitcode for process in processes) == [0, 3]
    assert not list(verify(zoo))
