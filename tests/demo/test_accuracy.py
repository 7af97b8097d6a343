"""The accuracy table in miniature: what is trained, and that nothing is trained twice."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("accelerate")

import psserve.training.finetune as finetuning
from psserve.demo.accuracy import TaskRun, accuracy_runs, train_all
from psserve.demo.demo_zoo import BASE_NAME, make_base
from psserve.demo.tasks import TASKS
from psserve.errors import TrainingError
from psserve.training.compare import ROWS, SHARES, summary
from psserve.zoo import Zoo
from tests.demo.test_demo_zoo import MINIATURE

CONFIG = replace(MINIATURE, tasks=("math",))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("accuracy") / "base"
    make_base(directory, CONFIG, lambda _: None, directory.parent)
    return directory


def test_each_way_is_trained_for_each_seed_and_only_once(base: Path, tmp_path: Path) -> None:
    runs = accuracy_runs(base, tmp_path, CONFIG, [0, 1], lambda _: None)
    table = summary(runs)
    assert table["seeds"] == 2
    assert {*ROWS, "lora"} <= table["tasks"]["math"].keys()
    job = tmp_path / "seed-1" / "math"
    kinds = {module.name: module.kind for module in Zoo.open(job / "zoo").modules()}
    assert kinds == {"full": "naive", "prefillshare": "cache-conditioned"}
    assert runs[0]["math"].lora is not None, "the first seed is the thorough one"
    assert runs[0]["math"].curves["full"].keys() == {*SHARES}
    data = [(tmp_path / f"seed-{seed}" / "math" / "math-train.jsonl").read_bytes() for seed in (0, 1)]
    assert data[0] != data[1], "a seed decides the training data"

    shutil.rmtree(job / "zoo")  # what is done needs it no more
    assert accuracy_runs(base, tmp_path, CONFIG, [0, 1], lambda _: None) == runs
    assert not (job / "zoo").exists()

    with pytest.raises(TrainingError, match="made of another base or configuration: move it away"):
        accuracy_runs(base, tmp_path, replace(CONFIG, learning_rate=1e-3), [0, 1], lambda _: None)


def test_what_an_interrupted_call_has_trained_is_not_trained_again(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = Zoo.create(tmp_path / "zoo", base, BASE_NAME)
    job = TaskRun(base, "math", tmp_path, CONFIG)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "add_trained_module", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_all(zoo, TASKS["math"], job)

    trained = []
    train = finetuning.train_to_end
    monkeypatch.setattr(finetuning, "train_to_end", lambda *args: (trained.append(args[1].path.name), train(*args)))
    train_all(zoo, TASKS["math"], job)
    assert trained == ["prefillshare"]
    assert [module.name for module in zoo.modules()] == ["full", "prefillshare"]
