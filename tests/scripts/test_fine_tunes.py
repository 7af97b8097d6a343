"""The comparison of fine-tunes: where its calls work, and that the documented ones make the documents."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("fine_tunes")


def documented(script: Any) -> list[Namespace]:
    text = (ROOT / "docs" / "demo-zoo.md").read_text()
    calls = re.findall(r"^    python scripts/fine_tunes\.py (.*)$", text, re.MULTILINE)
    assert calls
    return [script.parse(shlex.split(call)) for call in calls]


def test_each_document_has_a_work_folder_of_its_own(script: Any) -> None:
    first, second = (script.parse(["--out", f"docs/{name}.json"]) for name in ("first", "second"))
    assert (first.work, second.work) == (Path("build/fine-tunes/first"), Path("build/fine-tunes/second"))
    assert script.parse(["--out", "first.json", "--work", "elsewhere"]).work == Path("elsewhere")


def test_no_committed_document_is_written_unasked(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script.parse(["--share", "0.25"])
    assert "required: --out" in capsys.readouterr().err


@pytest.mark.slow
def test_documented_calls_that_share_a_folder_train_a_task_alike(script: Any) -> None:
    asked: dict[tuple[Path, str], set[tuple[int, int]]] = {}
    for options in documented(script):
        config = script.configuration(options)
        for task in options.tasks:
            asked.setdefault((options.work, task), set()).add((config.finetuning_steps[task], config.test_items))
    assert [len(configurations) for configurations in asked.values()] == [1] * len(asked)


@pytest.mark.slow
def test_documented_calls_make_the_committed_documents(script: Any) -> None:
    made: dict[str, set[tuple[object, ...]]] = {}
    for options in documented(script):
        config, rate = script.configuration(options), options.lora_rate or 3.0
        made.setdefault(options.out.name, set()).update(
            (task, method, rank, config.finetuning_steps[task], config.test_items, rate)
            for task in options.tasks
            for method in options.methods
            for rank in options.ranks
        )
    results = {name: json.loads((ROOT / "docs" / "results" / name).read_text())["fine_tunes"] for name in made}
    assert made == {
        name: {
            (*(each[key] for key in ("task", "method", "rank", "steps", "items")), each.get("lora_rate", 3.0))
            for each in found
        }
        for name, found in results.items()
    }
    assert sorted(made) == ["icarus.json", "larger-base.json", "larger-ranks.json", "lora-ranks.json"]
