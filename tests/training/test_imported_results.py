"""Of which version of a module a results file may be, by whom the program asked and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from psserve.errors import DataError
from psserve.training.imported_results import Found, check_model, check_version
from psserve.zoo import Module
from psserve.zoo.disk.manifest import SuccessionRecord

FILE = Path("results.json")
V1, V2 = 1_000, 2_000
"""When version 1 and then version 2 became the module."""


def found(model: str, start: float, end: float | None = None) -> Found:
    return Found(model, start, start if end is None else end, [])


@pytest.fixture
def module(tmp_path: Path) -> Module:
    taken = (SuccessionRecord(version=1, date=V1), SuccessionRecord(version=2, date=V2))
    return Module.model_construct(
        path=tmp_path, name="math", aliases=("maths",), version=2, created=V2, succession=taken
    )


@pytest.fixture
def first(module: Module) -> Module:
    return module.model_copy(update={"version": 1, "created": V1})


@pytest.mark.parametrize("model", ["math", "maths", "math@2", "maths@2"])
def test_names_aliases_and_the_version_s_own_name_are_its(module: Module, model: str) -> None:
    check_model(FILE, found(model, V2 + 1), module)
    check_version(FILE, found(model, V2 + 1), module, module)


@pytest.mark.parametrize("model", ["code", "math@1", "code@2", None])
def test_another_model_is_refused_by_name(module: Module, model: str) -> None:
    with pytest.raises(DataError, match=rf"results.json: of the model {model!r}, not of 'math' or 'math@2'"):
        check_model(FILE, found(model, V2 + 1), module)


def test_what_is_older_than_the_weights_is_refused(module: Module) -> None:
    check_model(FILE, found("math@2", V2 - 1, V2), module)
    with pytest.raises(DataError, match="older than the weights of 'math@2'"):
        check_model(FILE, found("math@2", V2 - 60, V2 - 1), module)


def test_a_plain_name_is_of_the_version_that_was_the_module_then(module: Module, first: Module) -> None:
    check_version(FILE, found("math", V1 + 1), first, module)
    check_version(FILE, found("math", V2 + 1), module, module)
    with pytest.raises(
        DataError, match=r"another version than 1: let the program ask for the model 'math@1', or leave"
    ):
        check_version(FILE, found("math", V2 + 1), first, module)


def test_a_run_through_a_change_of_versions_is_of_neither(module: Module, first: Module) -> None:
    for version in (first, module):
        with pytest.raises(DataError, match="may have been another version"):
            check_version(FILE, found("math", V2 - 1, V2 + 1), version, module)


def test_a_version_s_own_name_needs_no_time(module: Module, first: Module) -> None:
    check_version(FILE, found("math@1", V2 + 1), first, module)
