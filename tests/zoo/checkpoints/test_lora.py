from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from psserve import torchvision_ops
from psserve.errors import IncompatibleCheckpoint
from psserve.zoo import Zoo
from psserve.zoo.checkpoints.architectures import TABLE
from psserve.zoo.synthetic.shapes import MIXTURES, OWN, Architecture
from psserve.zoo.synthetic.zoo import build_zoo

torchvision_ops.declare_missing()

from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj.lora_"


def load(base: Path) -> Any:
    """The base in float32, as Transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def make_adapter(base: Path, adapter: Path, **config: Any) -> Path:
    """An adapter made and saved by PEFT, with random matrices."""
    torch.manual_seed(0)
    settings = {"r": 4, "target_modules": "all-linear", "init_lora_weights": False, "task_type": "CAUSAL_LM"} | config
    get_peft_model(load(base), LoraConfig(**settings)).save_pretrained(adapter)
    return adapter


@pytest.fixture(scope="module")
def adapter_made_once(session_zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(session_zoo.base.path, tmp_path_factory.mktemp("lora") / "adapter")


@pytest.fixture
def adapter(adapter_made_once: Path, tmp_path: Path) -> Path:
    """An adapter that fits the base, to be changed."""
    return shutil.copytree(adapter_made_once, tmp_path / "adapter")


def change_config(adapter: Path, **fields: object) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_tensors(adapter: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, adapter / "adapter_model.safetensors")


def merged_by_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    merged = PeftModel.from_pretrained(load(base), adapter).merge_and_unload()
    return dict(merged.state_dict())


@pytest.mark.parametrize("architecture", [one for one in OWN if one != "qwen3"])
def test_an_adapter_of_any_architecture_is_merged_as_peft_does(architecture: Architecture, tmp_path: Path) -> None:
    """On all of its linear layers, projections that are one matrix in the checkpoint among them; but not on experts."""
    zoo = build_zoo(tmp_path / "zoo", architecture, modules=())
    own = {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]} if architecture in MIXTURES else {}
    adapter = make_adapter(zoo.base.path, tmp_path / "adapter", lora_alpha=16, **own)
    module = zoo.add("math", adapter, allow_naive=True, store="copy")
    PeftModel.from_pretrained(load(zoo.base.path), adapter).merge_and_unload().save_pretrained(tmp_path / "merged")
    wanted = load_file(tmp_path / "merged" / "model.safetensors")
    found = load_file(module.path / "model.safetensors")
    base = load_file(zoo.base.path / "model.safetensors")
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=1e-6)
    changed = {name.rpartition("layers.0.")[2] for name in found if not torch.equal(found[name], base[name])}
    fused = {"self_attn.qkv_proj.weight", "mlp.gate_up_proj.weight"}
    assert changed >= (fused if architecture == "phi3" else {f"self_attn.{one}_proj.weight" for one in "qkvo"})


@pytest.mark.parametrize("architecture", [row.model_type for row in TABLE.values() if not row.adapters])
def test_an_adapter_is_merged_where_no_server_was_seen_to_add_one(architecture: Architecture, tmp_path: Path) -> None:
    zoo = build_zoo(tmp_path / "zoo", architecture, modules=())
    adapter = make_adapter(zoo.base.path, tmp_path / "adapter", target_modules=["o_proj"])
    module = zoo.add("math", adapter, allow_naive=True, store=None)
    assert module.store == "copy"
    with pytest.raises(IncompatibleCheckpoint, match=f"no {zoo.base.architecture} while .* with --merge"):
        zoo.add("other", adapter, allow_naive=True, store="adapter")


def test_an_adapter_of_joined_projections_stays_one(tmp_path: Path) -> None:
    zoo = build_zoo(tmp_path / "zoo", "phi3", modules=())
    module = zoo.add("math", make_adapter(zoo.base.path, tmp_path / "adapter"), allow_naive=True)
    assert module.adapter is not None
    assert module.adapter.targets == ("down_proj", "gate_up_proj", "o_proj", "qkv_proj")


@pytest.mark.parametrize("architecture", MIXTURES)
def test_an_adapter_of_attention_beside_experts_stays_one(architecture: Architecture, tmp_path: Path) -> None:
    zoo = build_zoo(tmp_path / "zoo", architecture, modules=())
    adapter = make_adapter(zoo.base.path, tmp_path / "adapter", target_modules=["q_proj", "o_proj"])
    module = zoo.add("math", adapter, allow_naive=True)
    assert module.adapter is not None
    assert module.adapter.targets == ("k_proj", "o_proj", "q_proj", "v_proj")


@pytest.mark.parametrize("architecture", MIXTURES)
def test_an_adapter_on_experts_is_refused_with_what_to_do(architecture: Architecture, tmp_path: Path) -> None:
    zoo = build_zoo(tmp_path / "zoo", architecture, modules=())
    adapter = make_adapter(zoo.base.path, tmp_path / "adapter")
    with pytest.raises(IncompatibleCheckpoint, match=r"experts were adapted.*merge_and_unload, save the model"):
        zoo.add("math", adapter, allow_naive=True)


@pytest.mark.parametrize(
    "config",
    [
        {"lora_alpha": 16},
        {"lora_alpha": 6, "use_rslora": True, "target_modules": ["q_proj", "down_proj"]},
        {"rank_pattern": {"q_proj": 2, r"layers\.[01]\.mlp\.up_proj": 6}, "alpha_pattern": {"layers.1.mlp.up_proj": 3}},
        {"target_modules": ["lm_head", "k_proj"], "layers_to_transform": None},
    ],
)
def test_merged_weights_are_those_of_peft(zoo: Zoo, tmp_path: Path, config: dict[str, Any]) -> None:
    adapter = make_adapter(zoo.base.path, tmp_path / "adapter", **config)
    module = zoo.add("math", adapter, allow_naive=True, store="copy")
    wanted = merged_by_peft(zoo.base.path, adapter)
    found = load_file(module.path / "model.safetensors")
    base = load_file(zoo.base.path / "model.safetensors")
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-6, atol=1e-6)
    assert any(not torch.equal(tensor, base[name]) for name, tensor in found.items())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_sum_is_rounded_once_to_the_bases_type(tmp_path: Path, dtype: str) -> None:
    zoo = build_zoo(tmp_path / "zoo", modules=(), dtype=dtype, tie_word_embeddings=True)
    adapter = make_adapter(zoo.base.path, tmp_path / "adapter")
    found = load_file(zoo.add("math", adapter, allow_naive=True, store="copy").path / "model.safetensors")
    wanted = merged_by_peft(zoo.base.path, adapter)
    for name, tensor in found.items():
        assert tensor.dtype == getattr(torch, dtype)
        rounded = wanted[name].to(tensor.dtype)
        off = (tensor != rounded).float().mean().item()  # where float32 sums in another order round to a neighbour
        assert off < 1e-3, name
        torch.testing.assert_close(tensor, rounded, rtol=2**-7, atol=1e-6)


def test_the_files_are_laid_out_as_the_bases(zoo: Zoo, adapter: Path) -> None:
    module = zoo.add("math", adapter, allow_naive=True, store="copy")
    base, merged = ((path / "model.safetensors").read_bytes() for path in (zoo.base.path, module.path))
    head = 8 + int.from_bytes(base[:8], "little")
    assert (len(base), base[:head]) == (len(merged), merged[:head])
    assert module.origin.startswith(f"LoRA adapter {adapter}")


def test_an_adapter_without_a_record_is_naive_and_needs_the_flag(zoo: Zoo, adapter: Path) -> None:
    with pytest.raises(IncompatibleCheckpoint, match=r"adapter: no psserve_training\.json.*--allow-naive"):
        zoo.add("math", adapter)
    assert zoo.add("math", adapter, allow_naive=True).kind == "naive"


def test_an_adapter_with_a_record_is_cache_conditioned(zoo: Zoo, adapter: Path) -> None:
    record = {"method": "cache-conditioned", "base_fingerprint": zoo.base.fingerprint}
    (adapter / "psserve_training.json").write_text(json.dumps(record))
    assert zoo.add("math", adapter).kind == "cache-conditioned"


def test_an_adapter_made_for_another_base_is_noted(zoo: Zoo, adapter: Path) -> None:
    change_config(adapter, base_model_name_or_path="ann/other-model")
    assert "made for ann/other-model" in zoo.add("math", adapter, allow_naive=True).notes[0]


def test_an_adapter_that_does_nothing_is_noted(zoo: Zoo, adapter: Path) -> None:
    change_tensors(adapter, lambda tensors: [tensors[name].zero_() for name in tensors if ".lora_B." in name])
    assert "the weights are the base's own" in zoo.add("math", adapter, allow_naive=True, store="copy").notes[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3', not 'LORA': merge it"),
        ({"use_dora": True}, "use_dora is True .*DoRA also rescales"),
        ({"bias": "lora_only"}, "bias is 'lora_only' .*biases were trained"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True .*transposed"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\] .*whole layers"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', which changes the base's weights"),
        ({"init_lora_weights": "lora_ga"}, "init_lora_weights is 'lora_ga', which changes the base's weights"),
        ({"lora_bias": True}, "lora_bias is True .*biases were trained"),
        ({"invented_next_year": 3}, "invented_next_year is 3 .*does not know"),
        ({"r": 8}, r"A is \[4, 128\].*rank 8 need \[8, 128\]"),
        ({"r": 0}, "r: Input should be greater than 0"),
        ({"lora_alpha": "big"}, "lora_alpha: Input should be a valid number"),
        ({"rank_pattern": {"(": 2}}, r"'\(' is no pattern"),
    ],
)
def test_what_is_no_plain_lora_is_refused(zoo: Zoo, adapter: Path, fields: dict[str, Any], message: str) -> None:
    change_config(adapter, **fields)
    with pytest.raises(IncompatibleCheckpoint, match=message):
        zoo.add("math", adapter, allow_naive=True)


def add_layer(tensors: dict[str, torch.Tensor]) -> None:
    for side in "AB":
        tensors[f"base_model.model.model.layers.9.self_attn.q_proj.lora_{side}.weight"] = torch.ones(4, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add_layer, r"layers\.9\.self_attn\.q_proj: the base has no such linear layer"),
        (lambda tensors: tensors.pop(Q_PROJ + "A.weight"), r"q_proj\.lora_A\.weight is missing"),
        (lambda tensors: tensors.update({"extra": torch.ones(2)}), "tensor extra is no LoRA matrix"),
        (lambda tensors: tensors.update({Q_PROJ + "A.weight": torch.ones(4, 65)}), r"A is \[4, 65\]"),
        (lambda tensors: tensors.update({Q_PROJ + "A.weight": torch.ones(4, 64, dtype=torch.int32)}), "A is I32"),
        (lambda tensors: tensors[Q_PROJ + "A.weight"].fill_(float("nan")), "q_proj.weight holds NaN"),
        (lambda tensors: tensors.clear(), "holds no tensors"),
    ],
)
def test_matrices_that_do_not_fit_are_refused(
    zoo: Zoo, adapter: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    change_tensors(adapter, change)
    with pytest.raises(IncompatibleCheckpoint, match=message):
        zoo.add("math", adapter, allow_naive=True, store="copy")
    assert not (zoo.path / "modules" / "math").exists()


def test_an_adapter_on_embeddings_is_refused(zoo: Zoo, tmp_path: Path) -> None:
    adapter = make_adapter(zoo.base.path, tmp_path / "adapter", target_modules=["embed_tokens"])
    with pytest.raises(IncompatibleCheckpoint, match=r"embed_tokens.*merge it with PEFT's merge_and_unload"):
        zoo.add("math", adapter, allow_naive=True)


def test_a_copy_of_the_base_that_is_none_is_refused(zoo: Zoo, tmp_path: Path) -> None:
    """PEFT saves the output layer with an adapter on it; if it was trained too, the sum is another one."""
    adapter = make_adapter(zoo.base.path, tmp_path / "adapter", target_modules=["lm_head"])
    change_tensors(adapter, lambda tensors: tensors["base_model.model.lm_head.base_layer.weight"].add_(1e-3))
    with pytest.raises(IncompatibleCheckpoint, match=r"lm_head\.base_layer\.weight is not the base's lm_head\.weight"):
        zoo.add("math", adapter, allow_naive=True)


def save_embeddings(base: Path, adapter: Path) -> Path:
    """An adapter that PEFT saves with copies of the embeddings, as it does for a vocabulary that changed."""
    model = get_peft_model(load(base), LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    model.save_pretrained(adapter, save_embedding_layers=True)
    return adapter


@pytest.mark.parametrize("tied", [True, False])
def test_copies_of_the_embeddings_are_accepted(tmp_path: Path, tied: bool) -> None:
    zoo = build_zoo(tmp_path / "zoo", modules=(), tie_word_embeddings=tied)
    adapter = save_embeddings(zoo.base.path, tmp_path / "adapter")
    assert "base_model.model.lm_head.weight" in load_file(adapter / "adapter_model.safetensors")
    found = load_file(zoo.add("math", adapter, allow_naive=True, store="copy").path / "model.safetensors")
    wanted = merged_by_peft(zoo.base.path, adapter)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("copy", ["lm_head", "model.embed_tokens"])
def test_a_trained_copy_of_tied_embeddings_is_refused(tmp_path: Path, copy: str) -> None:
    zoo = build_zoo(tmp_path / "zoo", modules=(), tie_word_embeddings=True)
    adapter = save_embeddings(zoo.base.path, tmp_path / "adapter")
    change_tensors(adapter, lambda tensors: tensors[f"base_model.model.{copy}.weight"].add_(1e-3))
    with pytest.raises(IncompatibleCheckpoint, match=rf"{copy}\.weight is not the base's model\.embed_tokens\.weight"):
        zoo.add("math", adapter, allow_naive=True)


@pytest.mark.parametrize("initialisation", ["orthogonal", "mica", "gaussian"])
def test_initialisations_that_leave_the_base_alone_are_accepted(zoo: Zoo, tmp_path: Path, initialisation: str) -> None:
    adapter = make_adapter(zoo.base.path, tmp_path / "adapter", init_lora_weights=initialisation)
    change_tensors(adapter, lambda tensors: [tensor.add_(0.01) for tensor in tensors.values()])  # training
    found = load_file(zoo.add("math", adapter, allow_naive=True, store="copy").path / "model.safetensors")
    wanted = merged_by_peft(zoo.base.path, adapter)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-6, atol=1e-6)


def rename_tensors(tensors: dict[str, torch.Tensor], rename: Callable[[str], str]) -> None:
    renamed = {rename(name): tensor for name, tensor in tensors.items()}
    tensors.clear()
    tensors.update(renamed)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: name.replace("base_model.model.", "base_model.model._orig_mod."),
        lambda name: "_fsdp_wrapped_module." + name.replace(".self_attn", "._fsdp_wrapped_module.self_attn"),
        lambda name: name.replace(".mlp.", "._checkpoint_wrapped_module.mlp."),
        lambda name: name.replace(".weight", ".default.weight"),
    ],
)
def test_names_of_a_wrapped_model_mean_the_same(zoo: Zoo, adapter: Path, rename: Callable[[str], str]) -> None:
    wanted = zoo.add("plain", adapter, allow_naive=True, store="copy")
    change_tensors(adapter, lambda tensors: rename_tensors(tensors, rename))
    assert zoo.add("wrapped", adapter, allow_naive=True, store="copy").files == wanted.files


def test_one_matrix_under_two_names_is_refused(zoo: Zoo, adapter: Path) -> None:
    name = Q_PROJ + "A.weight"
    change_tensors(adapter, lambda tensors: tensors.update({f"_orig_mod.{name}": tensors[name] + 1}))
    with pytest.raises(IncompatibleCheckpoint, match=r"_orig_mod.* are one and the same: remove one"):
        zoo.add("math", adapter, allow_naive=True)


def test_another_adapters_name_is_refused(zoo: Zoo, adapter: Path) -> None:
    change_tensors(adapter, lambda tensors: rename_tensors(tensors, lambda n: n.replace(".weight", ".second.weight")))
    with pytest.raises(IncompatibleCheckpoint, match=r"second\.weight is no LoRA matrix"):
        zoo.add("math", adapter, allow_naive=True)


def test_a_pickled_adapter_is_refused(zoo: Zoo, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(
        IncompatibleCheckpoint, match=r"adapter_model\.safetensors: not there: pickled weights are refused"
    ):
        zoo.add("math", adapter, allow_naive=True)


def test_an_adapter_beside_full_weights_is_ambiguous(zoo: Zoo, adapter: Path) -> None:
    (adapter / "model.safetensors").touch()
    with pytest.raises(IncompatibleCheckpoint, match=r"both a LoRA adapter .* and full weights \(model\.safetensors\)"):
        zoo.add("math", adapter, allow_naive=True)


def test_another_tokenizer_beside_an_adapter_is_refused(zoo: Zoo, adapter: Path) -> None:
    document = json.loads((zoo.base.path / "tokenizer.json").read_text())
    document["model"]["vocab"]["zebra"] = 511
    (adapter / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(IncompatibleCheckpoint, match=r"tokenizer\.model: base"):
        zoo.add("math", adapter, allow_naive=True)
