"""The committed demo zoo: complete, small, and as good as its table says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from psserve.demo.accuracy import about
from psserve.demo.demo_zoo import DemoConfig
from psserve.demo.tasks import TASKS, example_requests, held_out_items
from psserve.training.accuracy_report import accuracy_markdown
from psserve.training.answers import zoo_answerer
from psserve.training.scorers import SCORERS, evaluate
from psserve.zoo import Zoo
from psserve.zoo.verify import verify

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
LARGEST = 25_000_000
ITEMS = 100
FLOOR = 0.9
"""Of so few items; the table has the accuracy on a thousand."""


@pytest.fixture(scope="module")
def zoo() -> Zoo:
    return Zoo.open(ROOT / "model_zoo")


def test_every_file_is_what_its_manifest_says(zoo: Zoo) -> None:
    assert list(verify(zoo)) == []


def test_it_has_a_module_for_each_task_trained_on_its_base(zoo: Zoo) -> None:
    for name, task in TASKS.items():
        module = zoo.module(name)
        assert (module.task, module.training_for(zoo.base)) == (task.description, "on cache")
        assert module.examples == example_requests(name)


def test_it_is_small(zoo: Zoo) -> None:
    files = [*zoo.base.files, *(file for name in TASKS for file in zoo.module(name).files)]
    assert sum(file.size for file in files) <= LARGEST


def test_no_manifest_names_a_directory_of_the_machine_it_was_made_on(zoo: Zoo) -> None:
    for manifest in (zoo.path / "zoo.toml", *(zoo.module(name).path / "module.toml" for name in TASKS)):
        assert not re.search(r'["\s]/\w', manifest.read_text()), manifest


@pytest.mark.parametrize("name", TASKS)
def test_a_module_answers_held_out_items(zoo: Zoo, name: str) -> None:
    task = TASKS[name]
    items = held_out_items(name, ITEMS)
    score = evaluate(zoo_answerer(zoo, name), items, SCORERS[task.scorer], task.longest_answer)
    assert score.share >= FLOOR


def test_the_accuracy_table_is_of_this_zoo(zoo: Zoo) -> None:
    table = json.loads((RESULTS / "accuracy.json").read_text())
    assert (table["seeds"], set(table["tasks"])) == (3, set(TASKS))
    assert table | about(DemoConfig(), zoo.base.fingerprint) == table
    assert (RESULTS / "accuracy.md").read_text() == accuracy_markdown(table)
    for name in TASKS:
        (evaluation,) = zoo.module(name).evaluations
        assert table["tasks"][name]["runs"][0]["prefillshare"] == evaluation.right / evaluation.items
