"""The examples that train, each run as its user runs it, on a small zoo and a few records."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from psserve.training.batch import IGNORED
from psserve.training.checks import load_data
from psserve.training.config import FinetuneConfig
from psserve.training.hf import AutoTokenizer
from psserve.zoo import Zoo
from psserve.zoo.synthetic.zoo import build_zoo

EXAMPLES = Path(__file__).parents[1] / "examples"
RECORDS = [{"prompt": f"Ada has {count} cups.", "completion": json.dumps({"count": count})} for count in range(5)]


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Zoo:
    """A zoo where the examples look for it, and their data."""
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CI", "true")  # TRL reports its use otherwise
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    Path("records.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in RECORDS))
    return build_zoo(Path("model_zoo"), modules=(), num_hidden_layers=2)


@pytest.mark.parametrize(
    ("program", "out", "adapter"),
    [
        ("trl_sft.py", "trl-records", True),
        ("transformers_trainer.py", "trained-records", True),
        ("transformers_trainer.py --all-weights", "trained-records", False),
    ],
)
def test_what_an_example_saves_is_added_as_trained_on_the_cache(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch, program: str, out: str, adapter: bool
) -> None:
    name, *_ = arguments = program.split()
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    module = zoo.add("records", Path(out))
    assert module.kind == "cache-conditioned"
    assert (module.adapter is not None) == adapter


def test_the_example_without_trl_labels_what_finetune_trains_on(zoo: Zoo) -> None:
    labelled: Any = runpy.run_path(str(EXAMPLES / "transformers_trainer.py"))["labelled"]
    rows = [labelled(record, AutoTokenizer.from_pretrained(zoo.base.path)) for record in RECORDS]
    expected = load_data(zoo.base, FinetuneConfig(name="records", data=(Path("records.jsonl"),)))
    for row, conversation in zip(rows, expected, strict=True):
        trained = {position for start, end in conversation.answers for position in range(start, end)}
        assert row["input_ids"] == list(conversation.input_ids)
        assert [at for at, label in enumerate(row["labels"]) if label != IGNORED] == sorted(trained)
