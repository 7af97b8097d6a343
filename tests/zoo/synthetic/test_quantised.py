from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from psserve import torchvision_ops
from psserve.zoo import Zoo
from psserve.zoo.checkpoints.architectures import TABLE
from psserve.zoo.checkpoints.checkpoint import read_checkpoint
from psserve.zoo.checkpoints.completeness import check_tensors
from psserve.zoo.checkpoints.quantisation import read_quantisation
from psserve.zoo.synthetic.quantised import CONFIGS, for_size, quantised_layer, write_quantised
from psserve.zoo.synthetic.shapes import Architecture
from psserve.zoo.synthetic.zoo import new_model, save_model

torchvision_ops.declare_missing()  # SGLang is imported where it is needed: every process of a run reads this file

WEIGHT = torch.randn(96, 256, generator=torch.Generator().manual_seed(1))
STEPS = {"fp8-blocks": 0.2, "fp8-static": 0.3, "awq": 0.3, "gptq": 0.5}
"""More than half of the largest step between two numbers, in standard deviations of the weights."""


def layer(config: dict[str, Any]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    found = read_quantisation(Path("config.json"), {"quantization_config": config})
    assert found
    return quantised_layer(WEIGHT, found.method)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_values_are_near_the_original(name: str) -> None:
    _, value = layer(CONFIGS[name])
    error = (value - WEIGHT).abs()
    assert 0 < error.max() < STEPS.get(name, 0.3)
    assert error.mean() < error.max() / 3


@pytest.mark.parametrize("name", ["fp8-blocks", "compressed-dynamic", "compressed-static"])
def test_fp8_is_the_weight_times_its_scales(name: str) -> None:
    tensors, value = layer(CONFIGS[name])
    scale = next(tensor for part, tensor in tensors.items() if part.startswith("weight_scale"))
    if scale.ndim == 2:
        scale = scale.repeat_interleave(96 // scale.shape[0], 0).repeat_interleave(256 // scale.shape[1], 1)
    torch.testing.assert_close(tensors["weight"].float() * scale, value)


def test_awq_is_packed_as_sglang_unpacks_it() -> None:
    from sglang.kernels.ops.quantization.awq_triton import awq_dequantize_decomposition

    tensors, value = layer(CONFIGS["awq"])
    found = awq_dequantize_decomposition(tensors["qweight"], tensors["scales"].float(), tensors["qzeros"])
    torch.testing.assert_close(found.T, value)


@pytest.mark.parametrize("size", [32, -1])
def test_gptq_is_packed_as_sglang_packs_it(size: int) -> None:
    from sglang.srt.layers.quantization.utils import pack_rows

    tensors, value = layer(CONFIGS["gptq"] | {"group_size": size})
    scales = tensors["scales"].float().repeat_interleave(256 // tensors["scales"].shape[0], 0)
    numbers = (value.T / scales).round().to(torch.int32) + 8
    assert torch.equal(pack_rows(numbers, 4, 256, 96), tensors["qweight"])
    assert (tensors["qzeros"] == 0x77777777).all()
    assert torch.equal(tensors["g_idx"].long(), torch.arange(256) // (256 if size == -1 else size))


@pytest.mark.parametrize("name", ["fp8-blocks", "compressed-blocks", "awq", "gptq"])
def test_sizes_may_be_those_of_real_checkpoints(name: str) -> None:
    assert "32" not in str(for_size(CONFIGS[name], 64))
    tensors, _ = layer(for_size(CONFIGS[name], 32))
    smaller = for_size(CONFIGS[name], 64)
    found = read_quantisation(Path("config.json"), {"quantization_config": smaller})
    assert found
    larger, _ = quantised_layer(WEIGHT[:64], found.method)
    assert sum(one.numel() for one in larger.values()) < sum(one.numel() for one in tensors.values())


def test_a_plain_checkpoint_of_the_same_values_is_written(session_zoo: Zoo, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    write_quantised(session_zoo.base.path, tmp_path / "quantised", CONFIGS["compressed-dynamic"], plain)
    found = read_checkpoint(plain)
    check_tensors(found)
    assert (found.quantisation, found.dtype) == (None, "float32")
    name = "model.layers.2.mlp.up_proj"
    tensors = load_file(tmp_path / "quantised" / "model.safetensors")
    value = tensors[f"{name}.weight"].float() * tensors[f"{name}.weight_scale"]
    torch.testing.assert_close(load_file(plain / "model.safetensors")[f"{name}.weight"], value)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("architecture", [row.model_type for row in TABLE.values() if row.quantised])
def test_a_quantised_base_of_an_architecture_has_the_tensors_that_are_asked_for(
    architecture: Architecture, name: str, tmp_path: Path
) -> None:
    """Biases among them, which stay as they are. Projections as narrow as a tiny head have no whole blocks of 32."""
    (tmp_path / "base").mkdir()
    save_model(new_model(architecture, {"head_dim": 32, "num_hidden_layers": 1}), tmp_path / "base")
    found = read_checkpoint(write_quantised(tmp_path / "base", tmp_path / "quantised", CONFIGS[name]))
    assert found.quantisation
    check_tensors(found)
