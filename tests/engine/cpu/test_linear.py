"""The CPU's linear layers give what PyTorch's own give."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import linear

from psserve.engine.cpu import linear as cpu_linear

INPUTS, OUTPUTS = 1_024, 1_025


def layer_of(dtype: torch.dtype = torch.float32, outputs: int = OUTPUTS) -> Any:
    weight = torch.randn(outputs, INPUTS, generator=torch.Generator().manual_seed(0)) * INPUTS**-0.5
    return SimpleNamespace(weight=torch.nn.Parameter(weight.to(dtype), requires_grad=False))


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rows", [(1,), (2,), (7,), (300,), (2, 3)], ids=str)
@pytest.mark.parametrize("bias", [None, numbers(OUTPUTS)], ids=["no bias", "bias"])
def test_rows_are_multiplied(rows: tuple[int, ...], bias: torch.Tensor | None) -> None:
    layer, x = layer_of(), numbers(*rows, INPUTS)
    with torch.inference_mode():
        found = cpu_linear._apply(unused, None, layer, x, bias)
    torch.testing.assert_close(found, linear(x, layer.weight, bias), rtol=0, atol=5e-6)


def test_rows_that_are_not_side_by_side_are_multiplied() -> None:
    layer, x = layer_of(), numbers(5, 2 * INPUTS)[:, INPUTS:]
    found = cpu_linear._apply(unused, None, layer, x)
    torch.testing.assert_close(found, linear(x, layer.weight), rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    ("dtype", "outputs", "rows"),
    [(torch.bfloat16, OUTPUTS, 3), (torch.float32, OUTPUTS, 0), (torch.float32, OUTPUTS - 2, 3)],
    ids=["another number format", "no rows", "a small matrix"],
)
def test_all_else_is_left_to_sglang(dtype: torch.dtype, outputs: int, rows: int) -> None:
    x = numbers(rows, INPUTS).to(dtype)
    assert cpu_linear._apply(lambda *given: "stock", None, layer_of(dtype, outputs), x) == "stock"  # type: ignore[arg-type,return-value,comparison-overlap]


def unused(*given: Any) -> torch.Tensor:
    raise AssertionError("left to SGLang")
