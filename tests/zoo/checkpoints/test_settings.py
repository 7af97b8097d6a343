"""What a module is served with instead of the base's: its end tokens, sampling defaults, an output layer of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from psserve.errors import IncompatibleCheckpoint, ManifestError
from psserve.training.answers import end_tokens
from psserve.training.reference import load_pair
from psserve.zoo import Module, Zoo
from psserve.zoo.export import export_module
from psserve.zoo.materialise import materialise
from psserve.zoo.synthetic.zoo import build_zoo
from psserve.zoo.verify import verify
from tests.zoo.checkpoints.test_lora import make_adapter
from tests.zoo.conftest import Edit

GENERATION = "generation_config.json"


def add(zoo: Zoo, checkpoint: Path, **options: Any) -> Module:
    return zoo.add("math", checkpoint, allow_naive=True, replace=True, **options)


def served(zoo: Zoo, module: Module, tmp_path: Path, name: str = GENERATION) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((materialise(zoo, module, tmp_path / "served") / name).read_text())
    return document


def own_notes(module: Module) -> list[str]:
    return [note for note in module.notes if "weights are" not in note]


def test_what_says_the_same_stores_nothing(zoo: Zoo, checkpoint: Path, edit: Edit) -> None:
    edit("config.json", lambda config: config.update(eos_token_id=[2], bos_token_id=3))
    edit(GENERATION, lambda config: config.update(eos_token_id=[2, 2], top_k=None, min_p=None, bos_token_id=3))
    module = add(zoo, checkpoint)
    assert (module.settings, own_notes(module)) == ((), [])
    assert sorted(path.name for path in module.path.iterdir()) == ["model.safetensors", "module.toml"]


@pytest.mark.parametrize("store", ["copy", "link", "delta"])
def test_a_modules_own_end_tokens_and_defaults_are_served(
    zoo: Zoo, checkpoint: Path, edit: Edit, tmp_path: Path, store: str
) -> None:
    edit(GENERATION, lambda config: config.update(eos_token_id=[2, 5], temperature=0.7, top_p=0.9))
    module = add(zoo, checkpoint, store=store)
    wanted = {"eos_token_id": [2, 5], "temperature": 0.7, "top_p": 0.9}
    assert served(zoo, module, tmp_path) == wanted
    assert served(zoo, module, tmp_path, "config.json")["eos_token_id"] == [2, 5]
    assert own_notes(module) == [
        "its answers end with tokens of its own: 2, 5",
        "its own sampling defaults are served: temperature 0.7, top_p 0.9",
    ]
    exported = export_module(zoo, module, tmp_path / "exported")
    assert json.loads((exported / GENERATION).read_text()) == wanted
    assert add(zoo, exported).settings == module.settings
    assert list(verify(zoo)) == []


@pytest.mark.parametrize("where", ["config.json", GENERATION])
def test_end_tokens_may_be_in_either_configuration(
    zoo: Zoo, checkpoint: Path, edit: Edit, tmp_path: Path, where: str
) -> None:
    edit(where, lambda config: config.update(eos_token_id=7))
    assert served(zoo, add(zoo, checkpoint), tmp_path)["eos_token_id"] == [2, 7]


def test_the_end_token_of_the_modules_tokenizer_counts(zoo: Zoo, checkpoint: Path, edit: Edit, tmp_path: Path) -> None:
    edit("tokenizer_config.json", lambda config: config.update(eos_token="<|endoftext|>"))
    assert served(zoo, add(zoo, checkpoint), tmp_path)["eos_token_id"] == [0, 2]


def test_evaluation_ends_answers_where_a_server_does(zoo: Zoo, checkpoint: Path, edit: Edit) -> None:
    edit(GENERATION, lambda config: config.update(eos_token_id=[2, 5]))
    add(zoo, checkpoint)
    assert end_tokens(load_pair(zoo, "math").module) == {2, 5}


def test_a_module_without_the_file_has_the_bases_defaults(zoo: Zoo, checkpoint: Path) -> None:
    (checkpoint / GENERATION).unlink()
    assert add(zoo, checkpoint).settings == ()


def test_what_no_request_may_have_is_not_taken_and_said(zoo: Zoo, checkpoint: Path, edit: Edit, tmp_path: Path) -> None:
    edit(GENERATION, lambda config: config.update(temperature=-1, top_p="x", top_k=0, repetition_penalty=1.1))
    module = add(zoo, checkpoint)
    assert served(zoo, module, tmp_path) == {"eos_token_id": [2], "repetition_penalty": 1.1}
    assert own_notes(module) == [
        "its own sampling defaults are served: repetition_penalty 1.1",
        f"{GENERATION}: temperature is -1, and must be 0 or more: it is not taken",
        f"{GENERATION}: top_p is 'x', and must be above 0, at most 1: it is not taken",
    ]


def test_what_no_server_takes_is_said(zoo: Zoo, checkpoint: Path, edit: Edit) -> None:
    edit(GENERATION, lambda config: config.update(suppress_tokens=[5], stop_strings=["x"], max_new_tokens=9))
    module = add(zoo, checkpoint)
    assert module.settings == ()
    assert own_notes(module) == [
        f"{GENERATION}: suppress_tokens, stop_strings, max_new_tokens: not taken, as no server has such defaults: "
        "requests must ask for what they need"
    ]


def test_an_adapter_may_bring_its_own(zoo: Zoo, tmp_path: Path) -> None:
    adapter = make_adapter(zoo.base.path, tmp_path / "adapter")
    assert add(zoo, adapter).settings == ()
    (adapter / GENERATION).write_text(json.dumps({"eos_token_id": 9, "temperature": 0.5}))
    assert served(zoo, add(zoo, adapter), tmp_path) == {"eos_token_id": [2, 9], "temperature": 0.5}


def test_settings_that_changed_are_found(zoo: Zoo, checkpoint: Path, edit: Edit, tmp_path: Path) -> None:
    edit(GENERATION, lambda config: config.update(eos_token_id=[2, 5]))
    module = add(zoo, checkpoint)
    (module.path / GENERATION).write_text(json.dumps({"eos_token_id": [2, 6]}))
    with pytest.raises(ManifestError, match=r"generation_config\.json"):
        materialise(zoo, module, tmp_path / "served")
    assert [finding.name for finding in verify(zoo)] == ["math"]


@pytest.fixture
def tied(tmp_path: Path) -> Zoo:
    """A zoo of which the base ties its output layer to the embeddings."""
    return build_zoo(tmp_path / "tied", modules=(), tie_word_embeddings=True)


def with_head(zoo: Zoo, directory: Path, change: float) -> Path:
    """A checkpoint with an output layer in its file, off the embeddings by `change`."""
    checkpoint = shutil.copytree(zoo.base.path, directory)
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + change
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    return checkpoint


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("store", ["copy", "link", "delta"])
def test_a_trained_output_layer_of_a_tied_base_is_served(tied: Zoo, tmp_path: Path, store: str, said: bool) -> None:
    """Whether its configuration says that it is not tied, or only its file does: then Transformers does not tie it."""
    checkpoint = with_head(tied, tmp_path / "checkpoint", 0.1)
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": said}))
    module = add(tied, checkpoint, store=store)
    assert served(tied, module, tmp_path, "config.json")["tie_word_embeddings"] is False
    assert "its output layer (lm_head) is served as it is" in " ".join(module.notes)
    model = load_pair(tied, "math").module
    wanted = load_file(checkpoint / "model.safetensors")["lm_head.weight"]
    assert torch.equal(model.get_output_embeddings().weight, wanted)
    assert list(verify(tied)) == []


def test_a_copy_of_the_embeddings_is_no_output_layer_of_its_own(tied: Zoo, tmp_path: Path) -> None:
    assert add(tied, with_head(tied, tmp_path / "checkpoint", 0.0)).settings == ()


def test_a_base_that_servers_would_cut_is_refused(tied: Zoo, tmp_path: Path) -> None:
    checkpoint = with_head(tied, tmp_path / "checkpoint", 0.1)
    with pytest.raises(IncompatibleCheckpoint, match="set tie_word_embeddings to false there"):
        Zoo.create(tmp_path / "new", checkpoint)


def test_a_module_may_tie_what_the_base_does_not(zoo: Zoo, checkpoint: Path, edit: Edit, tmp_path: Path) -> None:
    edit("config.json", lambda config: config.update(tie_word_embeddings=True))
    tensors = load_file(checkpoint / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    module = add(zoo, checkpoint)
    assert served(zoo, module, tmp_path, "config.json")["tie_word_embeddings"] is True
    assert list(verify(zoo)) == []


def test_an_output_layer_that_is_missing_is_refused(tied: Zoo, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(tied.base.path, tmp_path / "checkpoint")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(IncompatibleCheckpoint, match=r"tensor lm_head\.weight: base F32\[512, 64\], module none"):
        add(tied, checkpoint)
