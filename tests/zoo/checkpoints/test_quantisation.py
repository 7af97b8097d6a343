from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo import Zoo
from psserve.zoo.checkpoints.checkpoint import read_checkpoint
from psserve.zoo.checkpoints.completeness import check_tensors, wanted_tensors
from psserve.zoo.checkpoints.quantisation import Quantisation, read_quantisation
from psserve.zoo.checkpoints.safetensors import Tensor
from psserve.zoo.synthetic.quantised import CONFIGS
from tests.zoo.conftest import Edit
from tests.zoo.quantised import Tensors, configure, copy_of

Q_PROJ = "model.layers.1.self_attn.q_proj"
PARTS = {
    "fp8-blocks": ("weight", "weight_scale_inv"),
    "fp8-static": ("weight", "weight_scale", "input_scale"),
    "compressed-dynamic": ("weight", "weight_scale"),
    "compressed-static": ("weight", "weight_scale", "input_scale"),
    "compressed-blocks": ("weight", "weight_scale"),
    "awq": ("qweight", "qzeros", "scales"),
    "gptq": ("qweight", "qzeros", "scales", "g_idx"),
}
SUMMARIES = {
    "fp8-blocks": "fp8, blocks of 32x32",
    "fp8-static": "fp8, whole tensors, static activations",
    "compressed-dynamic": "compressed-tensors FP8, rows",
    "compressed-static": "compressed-tensors FP8, whole tensors, static activations",
    "compressed-blocks": "compressed-tensors FP8, blocks of 32x32",
    "awq": "awq of 4 bits, groups of 32",
    "gptq": "gptq of 4 bits, groups of 32",
}


def read(fields: Mapping[str, Any]) -> Quantisation:
    found = read_quantisation(Path("config.json"), {"quantization_config": fields})
    assert found
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_a_base_of_every_method_is_accepted_and_recorded(
    quantised: Mapping[str, Path], tmp_path: Path, name: str
) -> None:
    zoo = Zoo.create(tmp_path / "zoo", quantised[name])
    assert (Zoo.open(zoo.path).base.quantisation, zoo.base.dtype) == (SUMMARIES[name], "bfloat16")


def test_an_unquantised_base_is_recorded_as_before(zoo: Zoo) -> None:
    assert zoo.base.quantisation is None
    assert "quantisation" not in (zoo.path / "zoo.toml").read_text()


@pytest.mark.parametrize(("name", "part"), [(name, part) for name, parts in PARTS.items() for part in parts])
def test_a_tensor_that_is_missing_is_named(quantised: Mapping[str, Path], tmp_path: Path, name: str, part: str) -> None:
    damaged = copy_of(quantised[name], tmp_path / "base", lambda tensors: tensors.pop(f"{Q_PROJ}.{part}"))
    with pytest.raises(IncompatibleCheckpoint, match=rf"{Q_PROJ}\.{part} needs \[.*\], found none$"):
        Zoo.create(tmp_path / "zoo", damaged)
    assert not (tmp_path / "zoo").exists()


@given(data=st.data(), name=st.sampled_from(sorted(CONFIGS)))
def test_every_tensor_of_another_shape_or_type_is_named(
    quantised: Mapping[str, Path], data: st.DataObject, name: str
) -> None:
    checkpoint = read_checkpoint(quantised[name])
    tensor = data.draw(st.sampled_from(sorted(checkpoint.tensors)))
    found = checkpoint.tensors[tensor]
    other = data.draw(st.sampled_from(["F8_E4M3", "I64", "U8", "shape"]).filter(lambda other: other != found.dtype))
    changed = (
        found.model_copy(update={"shape": (*found.shape, 2)})
        if other == "shape"
        else found.model_copy(update={"dtype": other})
    )
    with pytest.raises(IncompatibleCheckpoint, match=f"{tensor} needs ") as refusal:
        check_tensors(replace(checkpoint, tensors=checkpoint.tensors | {tensor: changed}))
    assert "; " not in str(refusal.value)  # and it alone


@pytest.mark.parametrize("name", CONFIGS)
def test_a_tensor_of_another_method_is_named(quantised: Mapping[str, Path], name: str) -> None:
    checkpoint = read_checkpoint(quantised[name])
    stray = Tensor(dtype="F32", shape=(1,), data_offsets=(0, 4))
    with pytest.raises(IncompatibleCheckpoint, match=rf"{Q_PROJ}\.azp is not in this architecture$"):
        check_tensors(replace(checkpoint, tensors=checkpoint.tensors | {f"{Q_PROJ}.azp": stray}))


def test_a_plain_checkpoint_may_not_hold_quantised_weights(zoo: Zoo) -> None:
    base = read_checkpoint(zoo.base.path)
    name = f"{Q_PROJ}.weight"
    odd = base.tensors[name].model_copy(update={"dtype": "F8_E4M3"})
    with pytest.raises(IncompatibleCheckpoint, match=rf"{Q_PROJ}\.weight needs F64 or F32 or F16 or BF16, found F8_E4"):
        check_tensors(replace(base, tensors=base.tensors | {name: odd}))


def test_a_weight_that_is_no_number_is_found(quantised: Mapping[str, Path], tmp_path: Path) -> None:
    def spoil(tensors: Tensors) -> None:
        tensors[f"{Q_PROJ}.weight"].view(torch.uint8)[3, 4] = 0xFF

    damaged = copy_of(quantised["fp8-blocks"], tmp_path / "base", spoil)
    with pytest.raises(IncompatibleCheckpoint, match=rf"tensor {Q_PROJ}\.weight holds NaN"):
        Zoo.create(tmp_path / "zoo", damaged)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("fp8-blocks", {"activation_scheme": "static"}, "weight_block_size needs the activation_scheme 'dynamic'"),
        ("fp8-blocks", {"weight_block_size": [128]}, "weight_block_size: List should have at least 2 items"),
        ("fp8-blocks", {"weight_block_size": [0, 128]}, r"weight_block_size\.0: Input should be greater than 0"),
        ("fp8-blocks", {"fmt": "e5m2"}, "fmt: Input should be 'e4m3'"),
        ("fp8-blocks", {"kv_cache_quant_algo": "FP8"}, "kv_cache_quant_algo: Input should be None"),
        ("fp8-blocks", {"ignored_layers": ["lm_head"]}, "ignored_layers and modules_to_not_convert: give one"),
        ("compressed-dynamic", {"format": "pack-quantized"}, "format: Input should be 'float-quantized'"),
        ("compressed-dynamic", {"format": "int-quantized"}, "format: Input should be 'float-quantized'"),
        ("compressed-dynamic", {"sparsity_config": {"format": "dense"}}, "sparsity_config: only quantised weights"),
        ("compressed-dynamic", {"ignore": ["re:("]}, r"ignore: 're:\(' is no pattern"),
        ("compressed-dynamic", {"config_groups": {}}, "config_groups: Dictionary should have at least 1 item"),
        ("awq", {"bits": 8}, "bits: Input should be 4"),
        ("awq", {"zero_point": False}, "zero_point: Input should be True"),
        ("awq", {"version": "gemv"}, "version: 'gemv': expected 'gemm'"),
        ("awq", {"group_size": 16}, "group_size: Input should be 32, 64 or 128"),
        ("gptq", {"bits": 8}, "bits: Input should be 4"),
        ("gptq", {"sym": False}, "sym: Input should be True"),
        ("gptq", {"checkpoint_format": "marlin"}, "checkpoint_format: Input should be 'gptq'"),
        ("gptq", {"dynamic": {"-:.*down.*": {}}}, "dynamic: only one kind of quantisation for all layers"),
        ("gptq", {"lm_head": True}, "lm_head: Input should be False"),
        ("gptq", {"quant_method": "bitsandbytes"}, "method 'bitsandbytes'"),
        ("gptq", {"quant_method": "modelopt"}, "method 'modelopt'"),
        ("gptq", {"quant_method": None}, "method None"),
    ],
)
def test_a_variant_that_cannot_be_served_is_refused_by_name(name: str, fields: dict[str, Any], message: str) -> None:
    supported = r"is not supported \(supported: fp8, compressed-tensors of FP8, awq and gptq of 4 bits\)"
    with pytest.raises(IncompatibleCheckpoint, match=rf"{message}.* {supported}"):
        read(CONFIGS[name] | fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {"num_bits": 8, "type": "int", "strategy": "channel"}}, r"weights\.type: Input should be 'float'"),
        ({"weights": {"num_bits": 4, "type": "float", "strategy": "tensor_group"}}, r"weights\.num_bits: .* be 8"),
        ({"weights": {"num_bits": 8, "type": "float", "strategy": "group"}}, "weights of strategy 'group'"),
        ({"weights": {"num_bits": 8, "type": "float", "strategy": "block"}}, "block_structure goes with"),
        (
            {"input_activations": {"num_bits": 8, "type": "float", "strategy": "token"}},
            "static input_activations of strategy 'token'",
        ),
        ({"targets": ["re:.*mlp.*"]}, r"targets\.0: Input should be 'Linear'"),
        ({"output_activations": {"num_bits": 8}}, "output_activations: Input should be None"),
    ],
)
def test_a_group_that_cannot_be_served_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    config = CONFIGS["compressed-dynamic"]
    group = config["config_groups"]["group_0"] | change
    with pytest.raises(IncompatibleCheckpoint, match=message):
        read(config | {"config_groups": {"group_0": group}})


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5), st.data())
def test_whatever_a_field_holds_it_is_read_or_refused(value: object, data: st.DataObject) -> None:
    config = CONFIGS[data.draw(st.sampled_from(sorted(CONFIGS)))]
    field = data.draw(st.sampled_from([*config, "ignore", "dynamic", "modules_to_not_convert"]))
    try:
        quantisation = read(config | {field: value})
    except IncompatibleCheckpoint:
        return
    assert quantisation.method.tensors(128, 256)


@pytest.mark.parametrize(
    ("name", "field", "entries", "alone"),
    [
        ("fp8-blocks", "modules_to_not_convert", ["lm_head", "layers.1.mlp.down_proj"], "model.layers.1.mlp.down_proj"),
        ("fp8-blocks", "modules_to_not_convert", ["model.layers.1"], Q_PROJ),
        ("compressed-dynamic", "ignore", ["lm_head", r"re:.*layers\.1\.self_attn\..*"], Q_PROJ),
        ("compressed-dynamic", "ignore", ["mlp.down_proj"], "model.layers.1.mlp.down_proj"),
        ("awq", "modules_to_not_convert", ["self_attn"], Q_PROJ),
    ],
)
def test_a_layer_that_is_left_alone_has_its_weight(name: str, field: str, entries: list[str], alone: str) -> None:
    quantisation = read(CONFIGS[name] | {field: entries})
    assert list(quantisation.of_layer(f"{alone}.weight", (64, 64))) == [f"{alone}.weight"]
    assert f"{alone}.weight" not in quantisation.of_layer("model.layers.3.mlp.up_proj.weight", (64, 64))


@pytest.mark.parametrize(
    ("name", "field", "entries"),
    [
        ("fp8-blocks", "modules_to_not_convert", ["q_proj"]),
        ("compressed-dynamic", "ignore", ["mlp.gate_proj"]),
        ("compressed-dynamic", "ignore", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
        ("awq", "modules_to_not_convert", ["q_proj", "k_proj"]),
    ],
)
def test_a_part_of_what_is_one_layer_to_sglang_is_not_left_alone(
    quantised: Mapping[str, Path], tmp_path: Path, name: str, field: str, entries: list[str]
) -> None:
    base = configure(copy_of(quantised[name], tmp_path / "base"), {field: entries})
    with pytest.raises(IncompatibleCheckpoint, match="is one layer to SGLang, and the configuration leaves but a part"):
        Zoo.create(tmp_path / "zoo", base)


def test_blocks_that_do_not_fit_a_layer_are_refused(quantised: Mapping[str, Path], tmp_path: Path) -> None:
    base = configure(copy_of(quantised["fp8-blocks"], tmp_path / "base"), {"weight_block_size": [96, 96]})
    with pytest.raises(IncompatibleCheckpoint, match=r"q_proj\.weight, fp8, .*: 128 rows are not whole blocks of 96"):
        Zoo.create(tmp_path / "zoo", base)


def test_groups_that_do_not_fit_a_layer_are_refused(quantised: Mapping[str, Path], tmp_path: Path) -> None:
    base = configure(copy_of(quantised["awq"], tmp_path / "base"), {"group_size": 128})
    with pytest.raises(IncompatibleCheckpoint, match=r"a layer \[128, 64\] is not of whole groups of 128"):
        Zoo.create(tmp_path / "zoo", base)


@pytest.mark.parametrize(("name", "value", "fits"), [("gptq", 0.0, True), ("gptq", 0.5, False), ("awq", 0.0, False)])
def test_gptq_writers_may_add_biases_of_zeros(
    quantised: Mapping[str, Path], tmp_path: Path, name: str, value: float, fits: bool
) -> None:
    bias = torch.full((128,), value, dtype=torch.float16)
    base = copy_of(quantised[name], tmp_path / "base", lambda tensors: tensors.update({f"{Q_PROJ}.bias": bias}))
    if fits:
        assert Zoo.create(tmp_path / "zoo", base).base.quantisation
        return
    with pytest.raises(IncompatibleCheckpoint, match=rf"{Q_PROJ}\.bias is not in this architecture$"):
        Zoo.create(tmp_path / "zoo", base)


def test_one_group_a_row_has_one_row_of_scales() -> None:
    tensors = read(CONFIGS["gptq"] | {"group_size": -1}).method.tensors(64, 256)
    assert {name: wanted.shapes for name, wanted in tensors.items()} == {
        "qweight": ((32, 64),),
        "qzeros": ((1, 8),),
        "scales": ((1, 64),),
        "g_idx": ((256,),),
    }


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [("fp8-blocks", "activation_scheme", "dynamic "), ("gptq", "desc_act", True), ("awq", "version", "GEMM")],
)
def test_the_fingerprint_changes_with_the_quantisation(
    quantised: Mapping[str, Path], tmp_path: Path, name: str, field: str, value: object
) -> None:
    if field == "activation_scheme":
        field, value = "weight_block_size", [32, 33]  # as many blocks in a row, and other ones
    before = Zoo.create(tmp_path / "before", quantised[name]).base
    changed = configure(copy_of(quantised[name], tmp_path / "base"), {field: value})
    after = Zoo.create(tmp_path / "after", changed).base
    assert {file.blake3 for file in before.files if "safetensors" in file.name} == {
        file.blake3 for file in after.files if "safetensors" in file.name
    }
    assert before.fingerprint != after.fingerprint


def test_an_old_name_of_the_configuration_is_refused(checkpoint: Path, edit: Edit) -> None:
    edit("config.json", lambda config: config.update(compression_config=CONFIGS["compressed-dynamic"]))
    with pytest.raises(IncompatibleCheckpoint, match="compression_config is an old name: rename it to quantization_c"):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize("name", ["hf_quant_config.json", "quant_model_description.json"])
def test_a_quantisation_in_a_file_of_its_own_is_refused(checkpoint: Path, name: str) -> None:
    (checkpoint / name).write_text("{}")
    with pytest.raises(IncompatibleCheckpoint, match=rf"{name}: a quantisation that is not supported"):
        read_checkpoint(checkpoint)


def test_gguf_is_refused_by_name(checkpoint: Path) -> None:
    (checkpoint / "model-q4.gguf").touch()
    with pytest.raises(IncompatibleCheckpoint, match=r"GGUF is not supported \(supported: fp8, "):
        read_checkpoint(checkpoint)


def test_a_llama_base_has_the_same_layers(quantised: Mapping[str, Path]) -> None:
    qwen = read_checkpoint(quantised["awq"])
    llama = wanted_tensors(replace(qwen, architecture="LlamaForCausalLM"))
    assert {name for name in wanted_tensors(qwen)} - {name for name in llama} == {
        f"model.layers.{layer}.self_attn.{side}_norm.weight" for layer in range(4) for side in "qk"
    }
