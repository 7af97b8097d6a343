from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo import Zoo
from psserve.zoo.checkpoints.safetensors import BLOCK, check_finite, weight_file

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_bad_value_is_found(tmp_path: Path, dtype: torch.dtype, value: float) -> None:
    tensor = torch.zeros(2, 50, dtype=dtype)
    tensor[1, 49] = value
    save_file({"good": torch.zeros(3, dtype=dtype), "bad": tensor}, tmp_path / "a.safetensors")
    with pytest.raises(IncompatibleCheckpoint, match="tensor bad holds NaN"):
        check_finite([weight_file(tmp_path / "a.safetensors")], "here")


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_but_finite_values_pass(tmp_path: Path, dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    values = torch.tensor([limits.max, limits.min, limits.tiny, -0.0], dtype=dtype)
    save_file({"x": values, "empty": values[:0], "ids": torch.tensor([-1])}, tmp_path / "a.safetensors")
    assert check_finite([weight_file(tmp_path / "a.safetensors")], "here") == []


def test_matrices_of_zeros_are_told(tmp_path: Path) -> None:
    tensors = {"zero": torch.zeros(2, 2), "bias": torch.zeros(2), "one": torch.eye(2), "empty": torch.zeros(0, 2)}
    save_file(tensors, tmp_path / "a.safetensors")
    assert check_finite([weight_file(tmp_path / "a.safetensors")], "here") == ["zero"]


def test_the_last_block_is_searched_too(tmp_path: Path) -> None:
    tensor = torch.zeros(BLOCK // 4 + 1)
    tensor[-1] = float("nan")
    save_file({"x": tensor}, tmp_path / "a.safetensors")
    with pytest.raises(IncompatibleCheckpoint):
        check_finite([weight_file(tmp_path / "a.safetensors")], "here")


def test_a_diverged_checkpoint_is_not_imported(zoo: Zoo, checkpoint: Path) -> None:
    from safetensors.torch import load_file

    tensors = load_file(checkpoint / "model.safetensors")
    tensors["lm_head.weight"][0, 0] = float("nan")
    save_file(tensors, checkpoint / "model.safetensors")
    with pytest.raises(IncompatibleCheckpoint, match=r"lm_head\.weight holds NaN"):
        zoo.add("math", checkpoint, allow_naive=True)
