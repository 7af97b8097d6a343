from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo import Zoo
from psserve.zoo.checkpoints.checkpoint import read_checkpoint
from psserve.zoo.checkpoints.compatibility import check_compatible, warnings
from tests.zoo.conftest import Edit


def check(zoo: Zoo, checkpoint: Path) -> None:
    check_compatible(zoo.base.name, read_checkpoint(zoo.base.path), read_checkpoint(checkpoint))


def test_the_base_fits_itself(zoo: Zoo, checkpoint: Path) -> None:
    check(zoo, checkpoint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps: base 1e-06, module 1e-05"),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
            "rope_parameters: base .*10000.*, module .*500000",
        ),
        ({"num_attention_heads": 2}, "num_attention_heads: base 4, module 2"),
        ({"max_position_embeddings": 8192}, "max_position_embeddings: base 4096, module 8192"),
        ({"hidden_act": "gelu"}, "hidden_act: base silu, module gelu"),
        ({"attention_bias": True}, "attention_bias: base false, module true"),
        ({"use_sliding_window": True, "sliding_window": 128}, "sliding_window: base none, module 128"),
        ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, "architecture: base Qwen3.*, module Llama"),
    ],
)
def test_a_configuration_that_changes_the_cache_is_refused_with_both_values(
    zoo: Zoo, checkpoint: Path, edit: Edit, change: dict[str, Any], message: str
) -> None:
    edit("config.json", lambda config: config.update(change))
    with pytest.raises(IncompatibleCheckpoint, match=message):
        check(zoo, checkpoint)


def test_the_old_spelling_of_the_same_configuration_fits(zoo: Zoo, checkpoint: Path, edit: Edit) -> None:
    def respell(config: dict[str, Any]) -> None:
        config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
        config["torch_dtype"] = config.pop("dtype")
        config["rope_scaling"] = None
        del config["hidden_act"]

    edit("config.json", respell)
    check(zoo, checkpoint)


def drop_token(document: dict[str, Any]) -> None:
    document["added_tokens"].pop()


def swap_tokens(document: dict[str, Any]) -> None:
    vocabulary = document["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]


@pytest.mark.parametrize(
    ("change", "message"),
    [(drop_token, r"tokenizer\.added_tokens: base \(hash"), (swap_tokens, r"tokenizer\.model: base \(hash")],
)
def test_another_tokenizer_is_refused(zoo: Zoo, checkpoint: Path, edit: Edit, change: Any, message: str) -> None:
    edit("tokenizer.json", change)
    with pytest.raises(IncompatibleCheckpoint, match=message):
        check(zoo, checkpoint)


@pytest.mark.parametrize("eos", [3, [3, 2], None])
def test_other_end_tokens_fit(zoo: Zoo, checkpoint: Path, edit: Edit, eos: object) -> None:
    edit("config.json", lambda config: config.update(eos_token_id=eos))
    edit("tokenizer_config.json", lambda config: config.update(eos_token={"content": "<|endoftext|>"}))
    check(zoo, checkpoint)


def test_an_end_token_that_is_no_token_is_refused(zoo: Zoo, checkpoint: Path, edit: Edit) -> None:
    edit("tokenizer_config.json", lambda config: config.update(eos_token={"content": "<|end|>"}))
    with pytest.raises(IncompatibleCheckpoint, match=r"tokenizer\.eos_token: base <\|im_end\|>, module <\|end\|>"):
        check(zoo, checkpoint)


@pytest.mark.parametrize("fields", [{"bos_token_id": 1}, {"pad_token_id": 2}, {"bos_token_id": 1, "use_cache": False}])
def test_first_and_padding_tokens_of_the_configuration_do_not_matter(
    zoo: Zoo, checkpoint: Path, edit: Edit, fields: dict[str, Any]
) -> None:
    edit("config.json", lambda config: config.update(fields))
    check(zoo, checkpoint)


def test_a_first_token_that_nothing_asks_for_does_not_matter(zoo: Zoo, checkpoint: Path, edit: Edit) -> None:
    edit("tokenizer_config.json", lambda config: config.update(bos_token="<|endoftext|>"))
    check(zoo, checkpoint)


def test_a_first_token_that_the_template_writes_matters(zoo: Zoo, checkpoint: Path, edit: Edit) -> None:
    template = zoo.base.path / "chat_template.jinja"
    template.write_text("{{ bos_token }}" + template.read_text())
    edit("tokenizer_config.json", lambda config: config.update(bos_token="<|endoftext|>"))
    with pytest.raises(IncompatibleCheckpoint, match=r"tokenizer\.bos_token: base none, module <\|endoftext\|>"):
        check(zoo, checkpoint)


def add_token(document: dict[str, Any]) -> None:
    document["added_tokens"].append({**document["added_tokens"][0], "id": 511, "content": "[PAD]"})


def test_a_padding_token_that_was_added_does_not_matter(zoo: Zoo, checkpoint: Path, edit: Edit) -> None:
    edit("tokenizer.json", add_token)
    edit("tokenizer_config.json", lambda config: config.update(pad_token="[PAD]"))
    check(zoo, checkpoint)


def test_any_other_token_that_was_added_matters(zoo: Zoo, checkpoint: Path, edit: Edit) -> None:
    edit("tokenizer.json", add_token)
    with pytest.raises(IncompatibleCheckpoint, match=r"tokenizer\.added_tokens: base"):
        check(zoo, checkpoint)


def test_weights_of_a_wrapped_model_are_told_what_to_do(zoo: Zoo, checkpoint: Path) -> None:
    tensors = {f"_orig_mod.{name}": tensor for name, tensor in load_file(checkpoint / "model.safetensors").items()}
    save_file(tensors, checkpoint / "model.safetensors")
    with pytest.raises(IncompatibleCheckpoint, match=r"_orig_mod\. is of the model's wrapper: unwrap it"):
        check(zoo, checkpoint)


def test_the_same_end_token_written_as_an_object_fits(zoo: Zoo, checkpoint: Path, edit: Edit) -> None:
    edit("tokenizer_config.json", lambda config: config.update(eos_token={"content": "<|im_end|>", "special": True}))
    check(zoo, checkpoint)


def test_padding_and_truncation_of_the_tokenizer_do_not_matter(zoo: Zoo, checkpoint: Path, edit: Edit) -> None:
    truncation = {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
    edit("tokenizer.json", lambda document: document.update(truncation=truncation))
    edit("tokenizer_config.json", lambda config: config.update(pad_token="<|im_end|>", padding_side="left"))
    check(zoo, checkpoint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), r"tensor model\.norm\.weight: base F32\[64\], module none"),
        (lambda t: t.update(extra=np.zeros(2, np.float32)), r"tensor extra: base none, module F32\[2\]"),
        (
            lambda t: t.update({"lm_head.weight": np.zeros((511, 64), np.float32)}),
            r"F32\[512, 64\], module F32\[511, 64\]",
        ),
        (lambda t: t.update({name: x.astype(np.float16) for name, x in t.items()}), "and 42 more"),
    ],
)
def test_other_tensors_are_refused(zoo: Zoo, checkpoint: Path, change: Any, message: str) -> None:
    file = checkpoint / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    with pytest.raises(IncompatibleCheckpoint, match=message):
        check(zoo, checkpoint)


def test_a_message_is_one_line(zoo: Zoo, checkpoint: Path, edit: Edit) -> None:
    edit("config.json", lambda config: config.update(rms_norm_eps=1.0, hidden_act="gelu"))
    with pytest.raises(IncompatibleCheckpoint) as caught:
        check(zoo, checkpoint)
    assert "\n" not in str(caught.value)


def found_warnings(zoo: Zoo, checkpoint: Path) -> list[str]:
    return list(warnings(read_checkpoint(zoo.base.path), read_checkpoint(checkpoint)))


def test_nothing_is_said_about_an_equal_checkpoint(zoo: Zoo, checkpoint: Path) -> None:
    assert found_warnings(zoo, checkpoint) == []


def test_a_different_chat_template_is_a_warning(zoo: Zoo, checkpoint: Path) -> None:
    (checkpoint / "chat_template.jinja").write_text("{{ messages }}")
    check(zoo, checkpoint)
    assert ["chat template differs" in warning for warning in found_warnings(zoo, checkpoint)] == [True]


def test_the_same_chat_template_in_the_tokenizer_configuration_is_no_warning(zoo: Zoo, checkpoint: Path) -> None:
    template = (checkpoint / "chat_template.jinja").read_text()
    (checkpoint / "chat_template.jinja").unlink()
    config = json.loads((checkpoint / "tokenizer_config.json").read_text())
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    assert found_warnings(zoo, checkpoint) == []


def test_a_checkpoint_without_tokenizer_is_a_warning(zoo: Zoo, checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()
    check(zoo, checkpoint)
    assert ["no complete tokenizer" in warning for warning in found_warnings(zoo, checkpoint)] == [True]


def test_the_fingerprint_follows_content_not_place(zoo: Zoo, tmp_path: Path) -> None:
    moved = shutil.copytree(zoo.base.path, tmp_path / "elsewhere")
    assert Zoo.create(tmp_path / "second", moved).base.fingerprint == zoo.base.fingerprint


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_the_fingerprint_changes_with_what_decides_the_cache(
    zoo: Zoo, checkpoint: Path, edit: Edit, tmp_path: Path, name: str
) -> None:
    if name == "config.json":
        edit(name, lambda config: config.update(rms_norm_eps=1e-5))
    elif name == "tokenizer.json":
        edit(name, drop_token)
    else:
        tensors = load_file(checkpoint / name)
        tensors["model.norm.weight"][0] += 1
        save_file(tensors, checkpoint / name)
    assert Zoo.create(tmp_path / "second", checkpoint).base.fingerprint != zoo.base.fingerprint


def test_a_checkpoint_of_another_element_type_is_told_how_to_be_converted(zoo: Zoo, checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    halves = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    save_file(halves, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        IncompatibleCheckpoint, match=r"convert it \(model\.to\(torch\.float32\)\.save_pretrained\(DIR\)\)"
    ):
        check_compatible("b", read_checkpoint(zoo.base.path), read_checkpoint(checkpoint))


def test_another_tokenizer_alone_is_told_what_to_do(zoo: Zoo, checkpoint: Path, edit: Edit) -> None:
    edit("tokenizer_config.json", lambda config: config.update(eos_token="<other>"))
    with pytest.raises(IncompatibleCheckpoint, match="if it was trained with the base's tokenizer, save that one"):
        check_compatible("b", read_checkpoint(zoo.base.path), read_checkpoint(checkpoint))
