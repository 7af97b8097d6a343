"""A miniature of the demo zoo, built from end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from psserve.demo.demo_zoo import DemoConfig, build_demo_zoo, held_out_file
from psserve.demo.pretrain import PretrainConfig
from psserve.demo.tasks import TASKS
from psserve.errors import ZooError
from psserve.training.answers import zoo_answerer
from psserve.training.data import read_conversations
from psserve.training.scorers import SCORERS, evaluate
from psserve.zoo import Zoo

pytest.importorskip("accelerate")

MINIATURE = DemoConfig(
    copying=PretrainConfig(steps=2, batch_size=1),
    pretraining=PretrainConfig(steps=2, batch_size=1),
    reading=PretrainConfig(steps=2, batch_size=1),
    finetuning_steps=dict.fromkeys(TASKS, 2),
    finetuning_batch=2,
    training_items=8,
    test_items=4,
    tokenizer_texts=1000,
    shape={"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1},
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def built(work: Path) -> Zoo:
    return build_demo_zoo(work / "zoo", work / "runs", MINIATURE, lambda _: None)


def test_it_has_a_trained_module_for_each_task(built: Zoo) -> None:
    assert [module.name for module in built.modules()] == sorted(TASKS)
    assert all(module.kind == "cache-conditioned" and module.task for module in built.modules())


def test_its_weights_are_16_bit_numbers(built: Zoo) -> None:
    assert built.base.dtype == "float16"
    assert built.base.vocab_size == 1024


@pytest.mark.parametrize("name", TASKS)
def test_its_modules_can_be_scored(built: Zoo, work: Path, name: str) -> None:
    items = read_conversations([held_out_file(work / "runs", name)])
    score = evaluate(zoo_answerer(built, name), items, SCORERS[TASKS[name].scorer], 4)
    assert (score.right, score.total) == (0, 4)


def test_what_is_there_is_not_overwritten(built: Zoo, work: Path) -> None:
    with pytest.raises(ZooError, match="not empty"):
        build_demo_zoo(built.path, work / "runs", MINIATURE, lambda _: None)
