"""A module goes to the Hub (tests/zoo/hub.py) with its card, and comes back as it was."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, constants

from psserve.errors import ZooError
from psserve.zoo import Zoo
from psserve.zoo.adding.incoming import TRAINING_RECORD
from psserve.zoo.disk.manifest import EvaluationRecord, TrainingRecord
from psserve.zoo.model_card import model_card
from psserve.zoo.push import push_module
from tests.zoo.hub import Hub, serve_hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A Hub whose one model is empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "hub" / "files").mkdir(parents=True)
    with serve_hub(tmp_path / "hub" / "files", monkeypatch) as hub:
        yield hub


@pytest.fixture
def trained(zoo: Zoo, checkpoint: Path) -> Zoo:
    """The zoo with a module "sums" that has a training record and an evaluation."""
    record = TrainingRecord(
        method="cache-conditioned",
        base_fingerprint=zoo.base.fingerprint,
        hyperparameters={"learning_rate": 2e-05},
        metrics={"loss": 0.25},
    )
    (checkpoint / TRAINING_RECORD).write_text(record.model_dump_json())
    zoo.add("sums", checkpoint, task="adds | subtracts")
    evaluation: dict[str, Any] = {"date": 1_700_000_000, "scorer": "number", "data_hash": "a" * 64, "how": "reference"}
    zoo.record_evaluation("sums", EvaluationRecord(items=200, right=188, max_tokens=64, **evaluation))
    return zoo


def names(hub: type[Hub]) -> set[str]:
    return {path.name for path in hub.directory.iterdir()}


def test_a_pushed_module_comes_back_with_its_training_record(trained: Zoo, hub: type[Hub]) -> None:
    commit = push_module(trained, trained.module("sums"), "ann/tiny")
    assert commit == hub.commit
    back = trained.add("back", f"ann/tiny@{commit}")
    sums = trained.module("sums")
    assert (back.kind, back.training, back.files) == (sums.kind, sums.training, sums.files)


def test_the_repository_is_made_private_where_asked(trained: Zoo, hub: type[Hub]) -> None:
    push_module(trained, trained.module("sums"), "ann/tiny", private=True)
    assert [(made["name"], made["organization"], made["visibility"]) for made in hub.created] == [
        ("tiny", "ann", "private")
    ]


def test_what_another_kind_of_module_left_there_gives_way(trained: Zoo, hub: type[Hub]) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors", "notes.txt"):
        (hub.directory / name).write_text("{}")
    push_module(trained, trained.module("sums"), "ann/tiny")
    assert "notes.txt" in names(hub)
    assert not {"adapter_config.json", "adapter_model.safetensors"} & names(hub)


def test_what_is_in_folders_of_the_repository_stays(trained: Zoo, hub: type[Hub]) -> None:
    others = [hub.directory / folder / "model.safetensors" for folder in ("onnx", "checkpoint-500")]
    for path in others:
        path.parent.mkdir()
        path.write_text("another's")
    push_module(trained, trained.module("sums"), "ann/tiny")
    assert [path.read_text() for path in others] == ["another's"] * 2


def test_the_card_says_base_fingerprint_training_and_accuracy(trained: Zoo, hub: type[Hub]) -> None:
    push_module(trained, trained.module("sums"), "ann/tiny")
    card = ModelCard((hub.directory / "README.md").read_text())
    assert card.data.tags == ["psserve", "prefillshare", "cache-conditioned"]
    for said in (
        trained.base.fingerprint,
        "trained on the KV cache of its base",
        "| learning_rate | 2e-05 |",
        "| loss | 0.25 |",
        "| 2023-11-14 | number | 188 of 200 | 0.9400 | 64 tokens | reference |",
        "psserve add-model sums --path ann/tiny\n",
    ):
        assert said in card.text


def test_the_card_of_a_naive_module_says_so(zoo: Zoo) -> None:
    card = model_card(zoo.base, zoo.module("alpha"), "ann/tiny")
    assert "not trained on the KV cache" in card
    assert "--path ann/tiny --allow-naive\n" in card


def test_the_card_names_a_base_of_the_hub(zoo: Zoo) -> None:
    base = zoo.base.model_copy(update={"source": "some/base", "revision": "f" * 40})
    card = ModelCard(model_card(base, zoo.module("alpha"), "ann/tiny"))
    assert card.data.base_model == "some/base"
    assert f"psserve init --base some/base --revision {'f' * 40}" in card.text


def test_a_hub_that_refuses_is_one_line(trained: Zoo, hub: type[Hub]) -> None:
    hub.refused = True
    with pytest.raises(ZooError, match=r"ann/tiny: the Hub refuses it: .*403.*`hf auth login`") as raised:
        push_module(trained, trained.module("sums"), "ann/tiny")
    assert "\n" not in str(raised.value)


def test_no_network_is_said(trained: Zoo, hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ZooError, match=r"the Hub cannot be reached: .*: check the network"):
        push_module(trained, trained.module("sums"), "ann/tiny")


@pytest.mark.parametrize("hub_id", ["tiny", "./out", "ann/tiny/x", "ann/ti ny"])
def test_what_is_no_hub_id_is_refused(trained: Zoo, hub_id: str) -> None:
    with pytest.raises(ZooError, match="no Hub id"):
        push_module(trained, trained.module("sums"), hub_id)


def test_a_module_whose_files_are_damaged_is_not_pushed(trained: Zoo, hub: type[Hub]) -> None:
    weights = trained.module("sums").path / "model.safetensors"
    shutil.copyfile(trained.module("alpha").path / "model.safetensors", weights)
    with pytest.raises(ZooError):
        push_module(trained, trained.module("sums"), "ann/tiny")
    assert names(hub) == set()
