"""The methods of quantisation against SGLang's own classes: configurations, tensors, layers that are left alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from psserve import torchvision_ops
from psserve.zoo import Zoo
from psserve.zoo.checkpoints.quantisation import LAYERS, Quantisation, read_quantisation
from psserve.zoo.disk.storage import read_json
from psserve.zoo.materialise import materialise
from psserve.zoo.synthetic.quantised import CONFIGS

torchvision_ops.declare_missing()
from sglang.srt.layers.quantization import fp8, fp8_utils, get_quantization_config, marlin_utils  # noqa: E402
from sglang.srt.layers.quantization.awq.awq import is_layer_skipped_awq  # noqa: E402
from sglang.srt.layers.quantization.awq.schemes import AWQMarlinLinearScheme  # noqa: E402
from sglang.srt.layers.quantization.compressed_tensors import schemes  # noqa: E402
from sglang.srt.layers.quantization.compressed_tensors.utils import should_ignore_layer  # noqa: E402
from sglang.srt.layers.quantization.fp8 import Fp8Config, Fp8LinearMethod  # noqa: E402
from sglang.srt.layers.quantization.gptq.gptq import GPTQMarlinConfig  # noqa: E402
from sglang.srt.layers.quantization.gptq.schemes import GPTQMarlinLinearScheme  # noqa: E402
from sglang.srt.layers.quantization.utils import is_layer_skipped, scalar_types  # noqa: E402

OUT, INTO = 192, 256
TYPES = {"F8_E4M3": torch.float8_e4m3fn, "I32": torch.int32}


def read(fields: Mapping[str, Any]) -> Quantisation:
    found = read_quantisation(Path("config.json"), {"quantization_config": fields})
    assert found
    return found


def config_of(fields: Mapping[str, Any]) -> Any:
    """SGLang's configuration of the weights: on GPUs it takes gptq for gptq_marlin, and 0.5.23 has no other there."""
    method = fields["quant_method"]
    kind = GPTQMarlinConfig if method == "gptq" else get_quantization_config(method)
    return kind.from_config(dict(fields))


def scheme(fields: Mapping[str, Any]) -> Any:
    """What makes SGLang's parameters of a layer, without the kernels that it would compute with."""
    config = config_of(fields)
    match fields["quant_method"]:
        case "fp8":
            method = object.__new__(Fp8LinearMethod)
            method.block_quant, method.use_mxfp8 = config.weight_block_size is not None, False
            method.is_checkpoint_fp8_serialized = True
        case "awq":
            method = object.__new__(AWQMarlinLinearScheme)
        case "gptq":
            method = object.__new__(GPTQMarlinLinearScheme)
        case _:
            layers = config.target_scheme_map["Linear"]
            static = layers["input_activations"] is not None and not layers["input_activations"].dynamic
            return schemes.CompressedTensorsW8A8Fp8(weight_quant=layers["weights"], is_static_input_scheme=static)
    method.quant_config, method.kernel = config, SimpleNamespace()
    return method


@pytest.mark.parametrize(
    "fields",
    [
        *CONFIGS.values(),
        CONFIGS["gptq"] | {"group_size": -1},
        CONFIGS["gptq"] | {"desc_act": True, "group_size": 128},
        CONFIGS["fp8-static"] | {"activation_scheme": "dynamic"},
    ],
)
def test_sglang_makes_the_tensors_of_the_table(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (fp8, fp8_utils):
        monkeypatch.setattr(module, "get_parallel", lambda: SimpleNamespace(tp_size=1), raising=False)
    layer = torch.nn.Module()
    layer.tp_group = None  # which 0.5.23 reads instead
    scheme(fields).create_weights(
        layer=layer,
        input_size_per_partition=INTO,
        output_partition_sizes=[OUT],
        input_size=INTO,
        output_size=OUT,
        params_dtype=torch.bfloat16,
        weight_loader=lambda *_: None,
        skip_block_quant_check=True,
    )
    made = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in layer.named_parameters()}
    wanted = read(fields).method.tensors(OUT, INTO)
    assert made.keys() == wanted.keys()
    for name, (shape, dtype) in made.items():
        assert shape in wanted[name].shapes
        assert dtype == TYPES.get(wanted[name].dtypes[0], dtype)


@pytest.mark.parametrize("name", CONFIGS)
def test_sglang_takes_the_configuration_that_a_module_is_served_with(
    zoo: Zoo, quantised: Mapping[str, Path], tmp_path: Path, name: str
) -> None:
    zoo.add("mine", quantised[name], allow_naive=True)
    served = read_json(materialise(zoo, zoo.module("mine"), tmp_path / "served") / "config.json")["quantization_config"]
    method = config_of(served).get_name().replace("_", "-").removesuffix("-marlin")
    assert method == CONFIGS[name]["quant_method"]


@pytest.mark.parametrize(
    ("fields", "quant_type", "zero_points"),
    [
        *((CONFIGS["awq"] | {"group_size": size}, scalar_types.uint4, True) for size in (32, 64, 128)),
        *((CONFIGS["gptq"] | {"group_size": size}, scalar_types.uint4b8, False) for size in (-1, 32, 64, 128)),
    ],
)
def test_groups_are_those_of_sglangs_kernels(fields: dict[str, Any], quant_type: object, zero_points: bool) -> None:
    group_size = read(fields).config["group_size"]
    assert marlin_utils.check_marlin_supported(quant_type, group_size, zero_points, device_capability=90)


PARTS = [part for parts in LAYERS.values() for part in parts]
NAMES = st.sampled_from(
    [
        *PARTS,
        *(part.partition(".")[2] for part in PARTS),
        "self_attn",
        "mlp",
        "model.layers.1",
        "layers.0",
        "lm_head",
        "v",
    ]
)
ENTRIES = st.lists(
    NAMES
    | st.tuples(st.sampled_from(["model.layers.0.", "layers.1."]), st.sampled_from(PARTS)).map("".join)
    | NAMES.map(lambda name: f"re:.*{name}.*"),
    max_size=6,
)


def skips(fields: Mapping[str, Any], fused: str) -> bool | None:
    """Whether SGLang leaves a layer alone; None if it refuses the configuration."""
    try:
        match fields["quant_method"]:
            case "fp8":
                return is_layer_skipped(fused, Fp8Config.from_config(dict(fields)).ignored_layers)
            case "awq":
                return is_layer_skipped_awq(fused, fields["modules_to_not_convert"])
            case _:
                return should_ignore_layer(fused, fields["ignore"])
    except ValueError:
        return None


@given(
    kind=st.sampled_from(
        [("fp8-blocks", "modules_to_not_convert"), ("awq", "modules_to_not_convert"), ("compressed-static", "ignore")]
    ),
    entries=ENTRIES,
    number=st.integers(0, 1),
    fused=st.sampled_from(sorted(LAYERS)),
)
def test_layers_that_are_left_alone_are_those_of_sglang(
    kind: tuple[str, str], entries: list[str], number: int, fused: str
) -> None:
    fields = CONFIGS[kind[0]] | {kind[1]: entries}
    quantisation, prefix = read(fields), f"model.layers.{number}."
    for part in LAYERS[fused]:
        try:
            alone = not quantisation.quantises(prefix + part)
        except ValueError:
            assert kind[0] != "fp8-blocks" or skips(fields, prefix + fused) is None
        else:
            assert skips(fields, prefix + fused) is alone
