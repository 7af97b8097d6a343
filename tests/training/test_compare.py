"""The accuracy table: which models answer which row, and how it is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from psserve.errors import IncompatibleCheckpoint
from psserve.training.accuracy_report import accuracy_markdown, write_accuracy
from psserve.training.answers import pair_answerer
from psserve.training.compare import Contest, TaskAccuracy, check_same_budget, compare_fine_tunes, summary
from psserve.training.conversation import Conversation
from psserve.training.reference import ModelPair
from psserve.training.scorers import SCORERS
from psserve.zoo import Zoo
from psserve.zoo.disk.manifest import TrainingRecord

SHARES = (0, 25, 50, 75, 100)


def items(answers: Sequence[str]) -> list[Conversation]:
    return [Conversation(({"role": "user", "content": "?"}, {"role": "assistant", "content": a})) for a in answers]


@dataclass
class Scripted:
    """Answers as many of ten items right as the script says for its models and share."""

    right: int

    def answer(self, items: Sequence[Conversation], max_tokens: int) -> list[str]:
        return ["yes"] * self.right + ["no"] * (len(items) - self.right)


def test_each_row_comes_from_its_models_and_share() -> None:
    models: Any = {"base": "B", "full": "F", "prefillshare": "P"}
    script = {("B", 1.0): 1, ("F", 0.0): 9, ("F", 1.0): 2, ("P", 0.0): 5, ("P", 1.0): 8}
    contest = Contest(**models, items=items(["yes"] * 10), scorer=SCORERS["exact"], max_tokens=4)

    def make(pair: Any, share: float) -> Scripted:
        assert pair.base == "B"
        return Scripted(script[pair.module, share])

    result = compare_fine_tunes(contest, make, shares=(0, 100))
    assert result.rows == {"base": 0.1, "full": 0.9, "naive": 0.2, "prefillshare": 0.8}
    assert result.curves == {"full": {0: 0.9, 100: 0.2}, "prefillshare": {0: 0.5, 100: 0.8}}


def test_real_models_are_compared(zoo: Zoo, alpha: ModelPair, beta: ModelPair) -> None:
    """What the full fine-tune answers with its own prefill is made the right answer to each item."""
    asked = items(["?"] * 3)
    right = pair_answerer(zoo, ModelPair(beta.module, beta.module)).answer(asked, 6)
    contest = Contest(
        alpha.base, beta.module, alpha.module, items([text or "-" for text in right]), SCORERS["exact"], 6
    )
    result = compare_fine_tunes(contest, lambda pair, share: pair_answerer(zoo, pair, base_share=share))
    assert result.rows["full"] == 1
    assert result.rows["prefillshare"] < 1
    assert result.rows["naive"] < 1


def table(seeds: int = 2) -> dict[str, Any]:
    runs = []
    for seed in range(seeds):
        curves = {"full": dict.fromkeys(SHARES, 0.5 + seed / 10), "prefillshare": dict.fromkeys(SHARES, 0.75)}
        runs.append({"math": TaskAccuracy(0.25, curves), "code": TaskAccuracy(0.0, curves)})
    return summary(runs)


def test_summary_is_mean_and_spread() -> None:
    document = table()
    assert document["seeds"] == 2
    assert document["tasks"]["math"]["full"] == pytest.approx(0.55)
    assert document["tasks"]["math"]["spread"]["full"] == pytest.approx(0.1 / 2**0.5)
    assert [run["full"] for run in document["tasks"]["math"]["runs"]] == pytest.approx([0.5, 0.6])
    assert document["tasks"]["math"]["shares"]["full"]["50"] == pytest.approx(0.55)
    assert "spread" not in table(seeds=1)["tasks"]["math"]


def test_curves_are_of_the_seeds_that_have_all_shares() -> None:
    curves = {"full": dict.fromkeys(SHARES, 0.5), "prefillshare": dict.fromkeys(SHARES, 0.75)}
    ends = {name: {0: 0.1, 100: 0.1} for name in curves}
    document = summary([{"math": TaskAccuracy(0.25, curves, lora=0.7)}, {"math": TaskAccuracy(0.25, ends)}])
    assert document["curve_seeds"] == 1
    assert set(document["tasks"]["math"]["shares"]["full"].values()) == {0.5}
    text = accuracy_markdown(document)
    assert "mean of 2 seeds, ± sample standard deviation; a row without it: one seed." in text
    assert "comes from the base, 1 seed:" in text


@pytest.mark.parametrize(
    ("field", "change"),
    [("data_hash", {"data_hash": "1" * 64}), ("steps", {"hyperparameters": {"steps": 9, "batch_size": 4}})],
)
def test_another_budget_is_no_comparison(field: str, change: dict[str, Any], tmp_path: Path) -> None:
    fields = {"method": "full", "base_fingerprint": "0" * 64, "data_hash": "0" * 64}
    ours = TrainingRecord.model_validate(fields | {"hyperparameters": {"steps": 8, "batch_size": 4}})
    check_same_budget(ours, ours, tmp_path)
    check_same_budget(ours, None, tmp_path)
    with pytest.raises(IncompatibleCheckpoint, match=f"{field} was"):
        check_same_budget(ours, ours.model_copy(update=change), tmp_path)


def test_markdown_has_a_row_for_each_model_and_curve() -> None:
    text = accuracy_markdown(table())
    assert "| PrefillShare: trained on the base's KV | 75.0 ± 0.0 | 75.0 ± 0.0 |" in text
    assert "| math, full | 55.0 | 55.0 | 55.0 | 55.0 | 55.0 |" in text


def test_report_files_are_complete_and_reproducible(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    first, second = write_accuracy(table(), tmp_path / "a"), write_accuracy(table(), tmp_path / "b")
    assert [path.name for path in first] == ["accuracy.json", "accuracy.md", "accuracy.png", "accuracy.svg"]
    assert json.loads(first[0].read_text()) == table()
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
