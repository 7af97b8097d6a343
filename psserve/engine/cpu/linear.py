"""Linear layers on a CPU by oneDNN, which PyTorch has and uses for other number formats than float32.

For a few rows of float32, as a decode step has, PyTorch's default (MKL) takes nearly as long as for each row alone: two
rows cost twice as much as one, though both wait for the same weights. Results differ in the last bits.

For a number of rows that it meets for the first time oneDNN makes code, which takes a millisecond or two: small
matrices are left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from psserve.engine.hooks import Hook, Kind

SMALLEST = 2**20
"""Weights of the smallest matrix that is worth it."""


def multiply(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`x` [rows, inputs] times `weight` [outputs, inputs], plus `bias`: float32 on a CPU, without gradients."""
    result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def _apply(
    original: Callable[..., torch.Tensor], method: object, layer: Any, x: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """AROUND `UnquantizedLinearMethod.apply`."""
    weight = layer.weight
    if weight.numel() < SMALLEST or not x.numel() or not x.dtype == weight.dtype == torch.float32:
        return original(method, layer, x, bias)
    return multiply(x, weight, bias)


def hooks() -> tuple[Hook, ...]:
    """The hooks that a server on CPU needs whatever its role; none where PyTorch was built without oneDNN."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return ()
    return (Hook("sglang.srt.layers.quantization.unquant.UnquantizedLinearMethod.apply", Kind.AROUND, _apply),)
