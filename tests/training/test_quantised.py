from __future__ import annotations

from pathlib import Path

import pytest

from psserve.errors import TrainingError
from psserve.training.answers import zoo_answerer
from psserve.training.config import FinetuneConfig
from psserve.training.finetune import finetune
from psserve.zoo import Zoo
from psserve.zoo.synthetic.quantised import CONFIGS, write_quantised
from psserve.zoo.synthetic.zoo import build_zoo


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return build_zoo(tmp_path_factory.mktemp("plain") / "zoo", modules=[], num_hidden_layers=1)


def test_a_module_is_not_trained_on_kv_that_would_not_be_served(plain: Zoo, tmp_path: Path) -> None:
    base = write_quantised(plain.base.path, tmp_path / "base", CONFIGS["awq"])
    zoo = Zoo.create(tmp_path / "zoo", base, "small")
    (tmp_path / "data.jsonl").write_text('{"prompt": "2 + 3?", "completion": "5"}\n')
    message = r"base 'small' is quantised \(awq of 4 bits, groups of 32\).*lacks the servers' kernels: train for"
    with pytest.raises(TrainingError, match=message):
        finetune(zoo, FinetuneConfig(name="mine", data=(tmp_path / "data.jsonl",), steps=1))
    assert not (zoo.path / ".training").exists()


@pytest.mark.parametrize("quantised", ["base", "module"])
def test_what_is_quantised_is_evaluated_in_a_fleet_alone(plain: Zoo, tmp_path: Path, quantised: str) -> None:
    other = write_quantised(plain.base.path, tmp_path / "other", CONFIGS["fp8-blocks"])
    base, module = (other, plain.base.path) if quantised == "base" else (plain.base.path, other)
    zoo = Zoo.create(tmp_path / "zoo", base)
    zoo.add("mine", module, allow_naive=True)
    with pytest.raises(TrainingError, match=r"quantised, and Transformers lacks the kernels .*psserve evaluate --url"):
        zoo_answerer(zoo, "mine")
