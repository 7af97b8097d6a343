"""Quantised copies of a checkpoint, by each method that can be served, and plain ones of the same values.

For tests and for checks on GPUs: every weight is rounded to the nearest, without the data by which real checkpoints
choose better.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psserve.zoo.checkpoints.quantisation import Quantisation, read_quantisation
from psserve.zoo.checkpoints.quantisation_methods import PACKED, Awq, CompressedTensors, Fp8, Gptq, Method

if TYPE_CHECKING:
    import torch

Quantised = tuple[dict[str, "torch.Tensor"], "torch.Tensor"]
"""The tensors of a layer, by the last part of their names, and the weight [out, in] that they stand for, float32."""

E4M3: dict[str, Any] = {"num_bits": 8, "type": "float", "symmetric": True}
FP8: dict[str, Any] = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
CONFIGS: dict[str, dict[str, Any]] = {
    "fp8-blocks": FP8 | {"weight_block_size": [32, 32], "modules_to_not_convert": ["lm_head"]},
    "fp8-static": {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]},
    "compressed-dynamic": {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": E4M3 | {"strategy": "channel", "dynamic": False},
                "input_activations": E4M3 | {"strategy": "token", "dynamic": True},
                "output_activations": None,
            }
        },
        "kv_cache_scheme": None,
    },
    "compressed-static": {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "ignore": ["re:.*lm_head"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": E4M3 | {"strategy": "tensor", "dynamic": False},
                "input_activations": E4M3 | {"strategy": "tensor", "dynamic": False},
            }
        },
    },
    "compressed-blocks": {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "ignore": ["lm_head"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": E4M3 | {"strategy": "block", "block_structure": [32, 32], "dynamic": False},
                "input_activations": E4M3 | {"strategy": "group", "group_size": 32, "dynamic": True},
            }
        },
    },
    "awq": {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 32,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": None,
    },
    "gptq": {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 32,
        "sym": True,
        "desc_act": False,
        "checkpoint_format": "gptq",
        "lm_head": False,
    },
}
"""Name -> a `quantization_config` as such checkpoints have it, but for sizes, which suit tiny models."""
LARGEST = 448.0
"""Of E4M3."""
ACTIVATIONS = 32.0
"""The largest that static scales allow for: inputs of layers are normed, or products of such."""
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbours is in each four bits of a number of AWQ's, the lowest first."""
GPTQ_ORDER = tuple(range(PACKED))


def for_size(config: dict[str, Any], size: int) -> dict[str, Any]:
    """One of `CONFIGS` with blocks or groups of another size, e.g. 128, that of most real checkpoints."""
    document: dict[str, Any] = json.loads(json.dumps(config).replace("32", str(size)))
    return document


def write_quantised(original: Path, destination: Path, config: dict[str, Any], plain: Path | None = None) -> Path:
    """Write a copy of the checkpoint `original` that is quantised as `config` says, its other weights in bfloat16.

    To `plain` goes, if given, an unquantised checkpoint of the same values, in float32.
    """
    from safetensors.torch import load_file, save_file

    found = read_quantisation(original / "config.json", {"quantization_config": config})
    assert found, "config is a quantization_config"
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, torch.Tensor] = {}
    for shard in sorted(original.glob("*.safetensors")):
        for name, tensor in load_file(shard).items():
            own, values[name] = quantised_tensor(name, tensor, found)
            tensors |= own
    copy_with(original, destination, {"quantization_config": config, "dtype": "bfloat16"})
    save_file(tensors, destination / "model.safetensors", metadata={"format": "pt"})
    if plain is not None:
        copy_with(original, plain, {"dtype": "float32"})
        save_file(values, plain / "model.safetensors", metadata={"format": "pt"})
    return destination


def copy_with(original: Path, destination: Path, fields: dict[str, Any]) -> None:
    """Copy all of a checkpoint but the weights, and set fields of its configuration."""
    shutil.copytree(original, destination, ignore=shutil.ignore_patterns("*.safetensors*"))
    path = destination / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields, indent=2))


def quantised_tensor(name: str, tensor: torch.Tensor, quantisation: Quantisation) -> Quantised:
    """The tensors, by their whole names, that a quantised checkpoint has of the plain `tensor`, and their value."""
    import torch

    layer, _, last = name.rpartition(".")
    if last != "weight" or not quantisation.quantises(layer):
        rounded = tensor.to(torch.bfloat16)
        return {name: rounded}, rounded.float()
    parts, value = quantised_layer(tensor.float(), quantisation.method)
    return {f"{layer}.{part}": one.contiguous() for part, one in parts.items()}, value.contiguous()


def quantised_layer(weight: torch.Tensor, method: Method) -> Quantised:
    """A layer [out, in], rounded to the nearest."""
    match method:
        case Fp8():
            scale = "weight_scale_inv" if method.weight_block_size else "weight_scale"
            return in_fp8(weight, scale, method.weight_block_size, static=method.activation_scheme == "static")
        case CompressedTensors():
            weights, inputs = method.group.weights, method.group.input_activations
            blocks = [1, weight.shape[1]] if weights.strategy == "channel" else weights.block_structure
            return in_fp8(weight, "weight_scale", blocks, static=inputs is not None and not inputs.dynamic)
        case Awq():
            return in_awq(weight, method.group_size)
        case Gptq():
            return in_gptq(weight, weight.shape[1] if method.group_size == -1 else method.group_size)
    raise ValueError(f"no such method: {method}")


def in_fp8(weight: torch.Tensor, scale_name: str, blocks: list[int] | None, *, static: bool) -> Quantised:
    """E4M3 with a scale for each block, or one for all."""
    import torch

    out, into = weight.shape
    high, wide = blocks or [out, into]
    tiles = weight.reshape(out // high, high, into // wide, wide)
    scale = tiles.abs().amax(dim=(1, 3)).clamp(min=1e-12) / LARGEST
    spread = scale.repeat_interleave(high, 0).repeat_interleave(wide, 1)
    rounded = (weight / spread).to(torch.float8_e4m3fn)
    tensors = {"weight": rounded, scale_name: scale if blocks else scale.reshape(1)}
    if static:
        tensors["input_scale"] = torch.tensor([ACTIVATIONS / LARGEST])
    return tensors, rounded.float() * spread


def in_awq(weight: torch.Tensor, size: int) -> Quantised:
    """Four bits between the smallest and the largest of each group of a row."""
    import torch

    groups = weight.T.reshape(-1, size, weight.shape[0])  # [groups, size, out]
    low, high = groups.amin(1, keepdim=True).clamp(max=0), groups.amax(1, keepdim=True).clamp(min=0)
    scale = ((high - low) / 15).clamp(min=1e-6).to(torch.bfloat16).float()
    zero = (-low / scale).round().clamp(0, 15)
    numbers = ((groups / scale).round() + zero).clamp(0, 15)
    value = ((numbers - zero) * scale).reshape(weight.T.shape).T
    tensors = {
        "qweight": packed(numbers.reshape(weight.T.shape), AWQ_ORDER),
        "qzeros": packed(zero[:, 0], AWQ_ORDER),
        "scales": scale[:, 0].to(torch.bfloat16),
    }
    return tensors, value


def in_gptq(weight: torch.Tensor, size: int) -> Quantised:
    """Four bits around 0 for each group of a row. The zero point is 8, stored as one less."""
    import torch

    out, into = weight.shape
    groups = weight.T.reshape(-1, size, out)
    scale = (groups.abs().amax(1, keepdim=True) / 7).clamp(min=1e-6).to(torch.bfloat16).float()
    numbers = ((groups / scale).round() + 8).clamp(0, 15)
    tensors = {
        "qweight": packed(numbers.reshape(into, out).T, GPTQ_ORDER).T,
        "qzeros": packed(torch.full((into // size, out), 7), GPTQ_ORDER),
        "scales": scale[:, 0].to(torch.bfloat16),
        "g_idx": torch.arange(into, dtype=torch.int32) // size,
    }
    return tensors, ((numbers - 8) * scale).reshape(into, out).T


def packed(numbers: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    """Eight neighbours [..., 8 n] of four bits each in one I32 [..., n]."""
    import torch

    eights = numbers.to(torch.int64).reshape(*numbers.shape[:-1], -1, PACKED)
    total = sum((eights[..., at] << 4 * place for place, at in enumerate(order)), torch.zeros_like(eights[..., 0]))
    return total.to(torch.int32)  # the highest bit becomes the sign
