"""The accuracy table in miniature: what is trained, and that nothing is trained twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("accelerate")

from psserve.training import accuracy
from psserve.training.accuracy import accuracy_runs
from psserve.training.compare import ROWS, summary
from psserve.training.demo_zoo import make_base
from psserve.zoo import Zoo
from tests.training.test_demo_zoo import MINIATURE

CONFIG = replace(MINIATURE, tasks=("math",))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("accuracy") / "base"
    make_base(directory, CONFIG, lambda _: None)
    return directory


def test_both_ways_are_trained_for_each_seed_and_only_once(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = accuracy_runs(base, tmp_path, CONFIG, [0, 1], lambda _: None)
    table = summary(runs)
    assert table["seeds"] == 2
    assert set(ROWS) <= table["tasks"]["math"].keys()
    kinds = {module.name: module.kind for module in Zoo.open(tmp_path / "seed-1" / "zoo").modules()}
    assert kinds == {"math-full": "naive", "math-prefillshare": "cache-conditioned"}

    monkeypatch.setattr(accuracy, "finetune", None)  # not called again
    assert accuracy_runs(base, tmp_path, CONFIG, [0, 1], lambda _: None) == runs


def test_a_seed_decides_the_training_data(base: Path, tmp_path: Path) -> None:
    accuracy_runs(base, tmp_path, CONFIG, [0, 1], lambda _: None)
    data = [(tmp_path / f"seed-{seed}" / "math-train.jsonl").read_bytes() for seed in (0, 1)]
    assert data[0] != data[1]
