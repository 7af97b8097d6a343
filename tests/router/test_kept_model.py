"""Trained task classifiers that are found again."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import orjson
import pytest

from psserve.errors import StartError
from psserve.router.task_routing import kept_model
from psserve.router.task_routing.classifier import TaskModule, TaskRequest
from psserve.router.task_routing.kept_model import KEPT, KeptModel
from psserve.router.task_routing.tfidf import LinearModel, TfidfClassifier, make
from tests.router.task_zoo import trained

MODULES = (TaskModule("tax-advice"), TaskModule("poems", task="writes poems about tools"))
REQUEST = TaskRequest("I need advice about my tax")
MODEL = trained(MODULES)._model.packed()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where models are kept: empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "psserve" / "task-classifier"


async def never(body: dict[str, object]) -> dict[str, object]:
    raise AssertionError("the base was asked")


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever trains fails."""
    monkeypatch.setattr(sys, "executable", "/bin/false")


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_the_same_modules_are_trained_once(folder: Path, request: pytest.FixtureRequest) -> None:
    first = await make(MODULES, never)
    assert len(files(folder)) == 1
    request.getfixturevalue("no_training")
    assert (await make(MODULES, never)).scores(REQUEST) == first.scores(REQUEST)
    with pytest.raises(StartError):
        await make((*MODULES, TaskModule("cooking")), never)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("kept", [b"", b"\x00" * 100, MODEL[:-4], MODEL[:-40], MODEL[:20]])
async def test_a_damaged_model_is_trained_anew(kept: bytes) -> None:
    KeptModel(orjson.dumps(MODULES)).write(MODEL)
    await make(MODULES, never)
    KeptModel(orjson.dumps(MODULES)).write(kept)
    with pytest.raises(StartError):
        await make(MODULES, never)


async def test_without_a_folder_that_can_be_written_models_are_trained(folder: Path) -> None:
    folder.parent.write_text("no folder")
    assert (await make(MODULES, never)).scores(REQUEST) == trained(MODULES).scores(REQUEST)
    assert KeptModel(orjson.dumps(MODULES)).read() is None


def test_the_user_alone_reads_what_is_kept(folder: Path) -> None:
    KeptModel(b"[]").write(b"model")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert KeptModel(b"[]").read() == b"model"


def test_a_folder_that_is_only_read_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    KeptModel(b"[]").write(b"model")

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", read_only)
    assert KeptModel(b"[]").read() == b"model"


def test_what_a_killed_writer_left_goes_with_a_later_one(folder: Path) -> None:
    KeptModel(b"1").write(b"model")
    for name in (".old", ".new"):
        (folder / name).mkdir()
        (folder / name / "half").touch()
    os.utime(folder / ".old", (0, 0))
    KeptModel(b"2").write(b"model")
    assert {path.name for path in folder.glob(".*")} == {".new"}
    assert len(files(folder)) == 3


def test_other_code_trains_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    KeptModel(b"[]").write(b"model")
    monkeypatch.setattr(kept_model, "_MADE_BY", ("background.py", "tfidf.py"))
    assert KeptModel(b"[]").read() is None


def test_models_that_were_used_last_stay(folder: Path) -> None:
    names = [b"%d" % number for number in range(KEPT + 2)]
    for name in names[:KEPT]:
        KeptModel(name).write(name)
    for path in folder.iterdir():
        os.utime(path, (0, 0))
    assert KeptModel(names[0]).read() == names[0]
    for name in names[KEPT:]:
        KeptModel(name).write(name)
    kept = [name for name in names if KeptModel(name).read() is not None]
    assert len(kept) == KEPT
    assert {names[0], *names[KEPT:]} <= set(kept)


def test_a_packed_model_is_the_same_model() -> None:
    model = trained(MODULES)._model
    again = LinearModel.unpacked(model.packed())
    assert again.packed() == model.packed()
    assert (again.modules, again.tool_modules, again.index) == (model.modules, model.tool_modules, model.index)
    assert TfidfClassifier(again).scores(REQUEST) == TfidfClassifier(model).scores(REQUEST)
