from __future__ import annotations

from pathlib import Path

import pytest

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.checkpoints.checkpoint import read_checkpoint
from tests.zoo.conftest import Edit


def test_a_sound_checkpoint_is_described(checkpoint: Path) -> None:
    read = read_checkpoint(checkpoint)
    assert (read.architecture, read.dtype, read.head_dim, read.eos_token_ids) == (
        "Qwen3ForCausalLM",
        "float32",
        32,
        (2,),
    )


@pytest.mark.parametrize(
    ("missing", "message"),
    [("config.json", "no config.json"), ("model.safetensors", "pickled weights are refused"), (None, "not found")],
)
def test_what_is_missing_is_said(checkpoint: Path, missing: str | None, message: str) -> None:
    if missing is None:
        checkpoint = checkpoint / "nowhere"
    else:
        (checkpoint / missing).unlink()
    (checkpoint.parent / "pytorch_model.bin").touch()
    with pytest.raises(IncompatibleCheckpoint, match=message):
        read_checkpoint(checkpoint)


def test_a_file_is_not_a_directory(checkpoint: Path) -> None:
    with pytest.raises(IncompatibleCheckpoint, match="not a directory"):
        read_checkpoint(checkpoint / "config.json")


def test_pickles_beside_safetensors_are_not_taken(checkpoint: Path) -> None:
    (checkpoint / "pytorch_model.bin").touch()
    read = read_checkpoint(checkpoint)
    assert not [path for path in read.weight_files + read.auxiliary_files if path.suffix == ".bin"]


def test_code_is_refused(checkpoint: Path) -> None:
    (checkpoint / "modeling_x.py").touch()
    with pytest.raises(IncompatibleCheckpoint, match="its own code"):
        read_checkpoint(checkpoint)


def test_a_weight_file_of_an_odd_name_is_refused(checkpoint: Path) -> None:
    """A manifest could not record it."""
    (checkpoint / "model.safetensors").rename(checkpoint / "my model.safetensors")
    with pytest.raises(IncompatibleCheckpoint, match=r"my model\.safetensors: rename it"):
        read_checkpoint(checkpoint)


def test_a_chat_template_that_is_no_text_is_refused(checkpoint: Path) -> None:
    (checkpoint / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(IncompatibleCheckpoint, match="not UTF-8"):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize("eos", ["two", [2, "3"], 2.5])
def test_an_end_token_that_is_no_id_is_refused(checkpoint: Path, edit: Edit, eos: object) -> None:
    edit("generation_config.json", lambda document: document.update(eos_token_id=eos))
    with pytest.raises(IncompatibleCheckpoint, match="eos_token_id: expected token ids"):
        _ = read_checkpoint(checkpoint).eos_token_ids


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_auto_map_is_refused(checkpoint: Path, edit: Edit, name: str) -> None:
    edit(name, lambda document: document.update(auto_map={"AutoConfig": "evil.Config"}))
    with pytest.raises(IncompatibleCheckpoint, match="auto_map asks to run code"):
        read_checkpoint(checkpoint)


def test_an_adapter_is_named_as_such(checkpoint: Path) -> None:
    (checkpoint / "adapter_config.json").write_text("{}")
    with pytest.raises(IncompatibleCheckpoint, match="a LoRA adapter"):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("architectures", ["MambaForCausalLM"], "MambaForCausalLM is not supported"),
        ("architectures", None, "expected a list of one name"),
        ("quantization_config", {"quant_method": "bitsandbytes"}, "method .bitsandbytes. is not supported"),
        ("num_hidden_layers", "four", "Transformers refuses it"),
        ("model_type", "unheard-of", "Transformers refuses it"),
        ("num_hidden_layers", 5, "number of `layer_types`"),
        ("head_dim", "wide", "head_dim"),
        ("hidden_size", -64, "hidden_size is -64, not a number from 1 on"),
        ("num_key_value_heads", 0, "num_key_value_heads"),
        ("vocab_size", None, "vocab_size"),
        ("max_position_embeddings", 2.5, "max_position_embeddings"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(
    checkpoint: Path, edit: Edit, field: str, value: object, message: str
) -> None:
    edit("config.json", lambda config: config.update({field: value}))
    with pytest.raises(IncompatibleCheckpoint, match=message):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000])
def test_damaged_json_is_an_error_that_names_the_file(checkpoint: Path, name: str, content: str) -> None:
    (checkpoint / name).write_text(content)
    with pytest.raises(IncompatibleCheckpoint, match=name):
        read_checkpoint(checkpoint)
