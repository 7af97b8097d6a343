from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo import Zoo
from psserve.zoo.checkpoints.checkpoint import read_checkpoint
from psserve.zoo.checkpoints.kv_scales import kv_scales
from tests.zoo.quantised import Tensors, copy_of

ATTENTION = "model.layers.2.self_attn"


def with_scales(names: Mapping[str, float]) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({f"{ATTENTION}.{name}": torch.tensor(value) for name, value in names.items()})


@pytest.mark.parametrize(
    "names",
    [
        {"k_scale": 0.5, "v_scale": 2.0},
        {"k_proj.k_scale": 0.5, "v_proj.v_scale": 2.0},
        {"k_proj.output_scale": 0.5, "v_proj.output_scale": 2.0},
    ],
)
def test_scales_are_found_under_each_of_their_names(
    quantised: Mapping[str, Path], tmp_path: Path, names: Mapping[str, float]
) -> None:
    base = copy_of(quantised["fp8-blocks"], tmp_path / "base", with_scales(names))
    assert Zoo.create(tmp_path / "zoo", base).base.quantisation == "fp8, blocks of 32x32"
    assert kv_scales(read_checkpoint(base)) == {"k of layer 2": 0.5, "v of layer 2": 2.0}


def test_one_scale_may_be_for_both(quantised: Mapping[str, Path], tmp_path: Path) -> None:
    base = copy_of(quantised["fp8-static"], tmp_path / "base", with_scales({"kv_scale": 0.25}))
    assert kv_scales(read_checkpoint(base)) == {"k of layer 2": 0.25, "v of layer 2": 0.25}


def test_without_any_they_are_one(quantised: Mapping[str, Path], zoo: Zoo, tmp_path: Path) -> None:
    ones = copy_of(quantised["fp8-static"], tmp_path / "ones", with_scales({"k_scale": 1.0, "v_scale": 1.0}))
    for checkpoint in (ones, quantised["fp8-static"], quantised["awq"], zoo.base.path):
        assert kv_scales(read_checkpoint(checkpoint)) == {}


def test_scales_that_sglang_does_not_read_are_one(quantised: Mapping[str, Path], tmp_path: Path) -> None:
    scales = with_scales({"k_scale": 0.5, "v_scale": 0.5})
    base = copy_of(quantised["compressed-dynamic"], tmp_path / "base", scales)
    assert kv_scales(read_checkpoint(base)) == {}
    assert Zoo.create(tmp_path / "zoo", base)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"k_scale": 0.5}, "KV cache scale k of layer 2 without that of v of layer 2"),
        ({"k_scale": 0.0, "v_scale": 1.0}, "k_scale is 0, and a scale is above 0"),
        ({"q_scale": 1.0}, "q_scale is not in this architecture"),
    ],
)
def test_a_scale_that_would_not_be_used_as_it_is_is_refused(
    quantised: Mapping[str, Path], tmp_path: Path, names: Mapping[str, float], message: str
) -> None:
    base = copy_of(quantised["fp8-blocks"], tmp_path / "base", with_scales(names))
    with pytest.raises(IncompatibleCheckpoint, match=message):
        Zoo.create(tmp_path / "zoo", base)


def test_a_plain_checkpoint_has_none(quantised: Mapping[str, Path], tmp_path: Path) -> None:
    base = copy_of(quantised["awq"], tmp_path / "base", with_scales({"k_scale": 0.5, "v_scale": 0.5}))
    with pytest.raises(IncompatibleCheckpoint, match="k_scale is not in this architecture"):
        Zoo.create(tmp_path / "zoo", base)


@pytest.mark.parametrize("module", ["fp8-blocks", "awq", "plain"])
def test_a_module_that_would_read_with_other_scales_is_refused(
    quantised: Mapping[str, Path], session_zoo: Zoo, tmp_path: Path, module: str
) -> None:
    scales = with_scales({"k_scale": 0.5, "v_scale": 2.0})
    zoo = Zoo.create(tmp_path / "zoo", copy_of(quantised["fp8-blocks"], tmp_path / "base", scales))
    path = (quantised | {"plain": session_zoo.base.path})[module]
    with pytest.raises(IncompatibleCheckpoint, match=r"KV cache scale k of layer 2: base 0\.5, module none"):
        zoo.add("mine", path, allow_naive=True)


def test_a_module_with_the_same_scales_fits(quantised: Mapping[str, Path], tmp_path: Path) -> None:
    scales = with_scales({"k_scale": 0.5, "v_scale": 2.0})
    zoo = Zoo.create(tmp_path / "zoo", copy_of(quantised["fp8-blocks"], tmp_path / "base", scales))
    module = copy_of(quantised["fp8-static"], tmp_path / "module", scales)
    assert zoo.add("mine", module, allow_naive=True).quantisation == "fp8, whole tensors, static activations"
