"""The scales of a KV cache in FP8: what keys and values are divided by when they are written, and multiplied by again.

The base writes them and modules read them, so both must use the same. Of the supported methods SGLang 0.5.17 and 0.5.18
read them for fp8 alone (weight_utils.py, maybe_remap_kv_scale_name, and quantization/kv_cache.py, BaseKVCacheMethod);
elsewhere, and where a checkpoint has none, they are 1. compressed-tensors checkpoints may have some, which stay unread.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.checkpoints.checkpoint import Checkpoint
from psserve.zoo.checkpoints.quantisation_methods import FLOATS, ONE, CompressedTensors, Fp8
from psserve.zoo.checkpoints.safetensors import Tensor, Weights

NAME = re.compile(
    r"model\.layers\.(?P<layer>\d+)\.self_attn\."
    r"(?:(?P<both>kv_scale)|(?:[kv]_proj\.)?(?P<one>[kv])_scale|(?P<output>[kv])_proj\.output_scale)"
)


def may_be_kv_scale(checkpoint: Checkpoint) -> Callable[[str, Tensor], bool]:
    """Says of a tensor whether it is a KV cache scale that this checkpoint may have."""
    if not (checkpoint.quantisation and isinstance(checkpoint.quantisation.method, Fp8 | CompressedTensors)):
        return lambda name, tensor: False
    layers = checkpoint.config["num_hidden_layers"]

    def is_scale(name: str, tensor: Tensor) -> bool:
        match = NAME.fullmatch(name)
        known = match is not None and int(match["layer"]) < layers
        return known and tensor.shape in ONE and tensor.dtype in FLOATS

    return is_scale


def kv_scales(checkpoint: Checkpoint) -> dict[str, float]:
    """The scales with which a server of the checkpoint reads and writes: "keys of layer 0" -> scale, all others are 1.

    IncompatibleCheckpoint if a scale is not above 0, which SGLang takes for none, or one of a pair is missing.
    """
    scales: dict[str, float] = {}
    if not (checkpoint.quantisation and isinstance(checkpoint.quantisation.method, Fp8)):
        return scales
    weights = Weights(checkpoint.shards)
    for name in checkpoint.tensors:
        match = NAME.fullmatch(name)
        if match is None:
            continue
        value = read_number(weights, name)
        if not value > 0:
            raise IncompatibleCheckpoint(f"{checkpoint.path}: {name} is {value:g}, and a scale is above 0: correct it")
        sides = "kv" if match["both"] else match["one"] or match["output"]
        scales |= {f"{side} of layer {match['layer']}": value for side in sides}
    for key in scales:
        other = {"k": "v", "v": "k"}[key[0]] + key[1:]
        if other not in scales:
            raise IncompatibleCheckpoint(f"{checkpoint.path}: KV cache scale {key} without that of {other}: add it")
    return {key: value for key, value in sorted(scales.items()) if value != 1}


def read_number(weights: Weights, name: str) -> float:
    """The value of a tensor of one number."""
    from safetensors import safe_open

    with safe_open(weights.places[name].path, framework="pt") as file:
        return float(file.get_tensor(name))
