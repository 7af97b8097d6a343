"""An adapter's serving form gives the adapter's sums, as PEFT has them, for all that an adapter may be."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo import Zoo
from psserve.zoo.checkpoints.checkpoint import Checkpoint, read_checkpoint
from psserve.zoo.checkpoints.lora import ADAPTER_CONFIG, Adapter, key, read_adapter
from psserve.zoo.checkpoints.serving_form import check_form, make_form, why_not_servable
from psserve.zoo.disk.forms import ADAPTER_WEIGHTS

from .test_lora import change_config, load, make_adapter, merged_by_peft

SHAPES: dict[str, dict[str, Any]] = {
    "all layers": {"lora_alpha": 8},
    "rsLoRA": {"lora_alpha": 6, "use_rslora": True, "target_modules": ["q_proj", "v_proj"]},
    "alpha_pattern": {"lora_alpha": 8, "alpha_pattern": {"q_proj": 3, r"layers\.1\.mlp\.down_proj": 64}},
    "rank_pattern": {"lora_alpha": 8, "rank_pattern": {"k_proj": 2, r"layers\.[01]\.mlp\.up_proj": 6}},
    "both patterns": {"rank_pattern": {"q_proj": 7}, "alpha_pattern": {"v_proj": 5}, "use_rslora": True},
    "k only": {"target_modules": ["k_proj"]},
    "k and v": {"target_modules": ["k_proj", "v_proj"]},
    "q and v": {"target_modules": ["q_proj", "v_proj"]},
    "up only": {"target_modules": ["up_proj"]},
    "gate and down": {"target_modules": ["gate_proj", "down_proj"]},
    "some layers": {"layers_to_transform": [1, 3], "target_modules": ["q_proj", "o_proj"]},
    "one layer of one kind": {"target_modules": r".*layers\.2\.mlp\.gate_proj"},
    "output layer": {"target_modules": ["lm_head", "o_proj"]},
}
"""Those of which SGLang, given PEFT's own files, computes some wrong, and some not at all."""


@pytest.fixture(scope="module")
def base(session_zoo: Zoo) -> Checkpoint:
    return read_checkpoint(session_zoo.base.path)


def write(adapter: Adapter, base: Checkpoint, directory: Path) -> Path:
    """The serving form on disk."""
    directory.mkdir()
    for name, content in make_form(adapter, base).files().items():
        (directory / name).write_bytes(content)
    return directory


def as_served(form: Path) -> dict[str, torch.Tensor]:
    """Layer -> what servers add to its weight: one scale and one rank for all layers, whatever PEFT would read."""
    config = json.loads((form / ADAPTER_CONFIG).read_bytes())
    tensors = load_file(form / ADAPTER_WEIGHTS)
    layers = {name.removesuffix(".lora_A.weight") for name in tensors if name.endswith("lora_A.weight")}
    scale = config["lora_alpha"] / config["r"]
    assert {tensor.shape[0] for name, tensor in tensors.items() if ".lora_A." in name} == {config["r"]}
    return {
        layer.removeprefix("base_model.model."): scale
        * (tensors[f"{layer}.lora_B.weight"].double() @ tensors[f"{layer}.lora_A.weight"].double())
        for layer in layers
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_the_sums_are_those_of_peft(base: Checkpoint, tmp_path: Path, shape: str) -> None:
    made = make_adapter(base.path, tmp_path / "adapter", **SHAPES[shape])
    served = as_served(write(read_adapter(made, base), base, tmp_path / "form"))
    original, merged = load(base.path).state_dict(), merged_by_peft(base.path, made)
    for name, weight in merged.items():
        sums = original[name].double() + served.get(name.removesuffix(".weight"), 0)
        torch.testing.assert_close(sums.float(), weight, rtol=1e-6, atol=1e-6)
    assert any(tensor.any() for tensor in served.values())


@pytest.mark.parametrize("shape", SHAPES)
def test_groups_are_whole(base: Checkpoint, tmp_path: Path, shape: str) -> None:
    made = make_adapter(base.path, tmp_path / "adapter", **SHAPES[shape])
    form = make_form(read_adapter(made, base), base)
    for group in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
        places = [{name.replace(member, "") for name in form.tensors if f".{member}." in name} for member in group]
        assert all(place == places[0] for place in places)
    assert form.targets == tuple(sorted(form.targets))


def test_without_the_form_rslora_would_be_served_wrong(base: Checkpoint, tmp_path: Path) -> None:
    made = make_adapter(base.path, tmp_path / "adapter", **SHAPES["rsLoRA"])
    [(weight, layer), *_] = read_adapter(made, base).layers.items()
    b, a = read_adapter(made, base).product(weight)
    wrong = as_served(made)[layer]
    assert not torch.allclose(wrong, (b @ a).double(), rtol=0.1)


def test_matrices_of_the_usual_scale_keep_their_bytes(base: Checkpoint, tmp_path: Path) -> None:
    made = make_adapter(base.path, tmp_path / "adapter", lora_alpha=3, use_rslora=True)
    form = write(read_adapter(made, base), base, tmp_path / "form")
    found, wanted = load_file(form / ADAPTER_WEIGHTS), load_file(made / ADAPTER_WEIGHTS)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def matrices(layers: dict[str, tuple[int, int]], ranks: list[int], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Random matrices of layers [out, in]."""
    tensors = {}
    for (layer, (out, width)), rank in zip(layers.items(), ranks, strict=True):
        tensors[key(layer, "A")] = torch.randn(rank, width).to(dtype)
        tensors[key(layer, "B")] = torch.randn(out, rank).to(dtype)
    return tensors


LAYERS = [
    f"model.layers.{number}.{name}"
    for number in range(4)
    for name in (
        *(f"self_attn.{letter}_proj" for letter in "qkvo"),
        *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
    )
] + ["lm_head"]
ALPHAS = st.one_of(st.integers(1, 64), st.floats(0.01, 100))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ranks=st.dictionaries(st.sampled_from(LAYERS), st.integers(1, 9), min_size=1, max_size=12),
    alpha=ALPHAS,
    alphas=st.dictionaries(st.sampled_from(LAYERS), ALPHAS, max_size=4),
    use_rslora=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 99),
)
def test_any_adapter_gives_the_same_sums_in_its_form(
    base: Checkpoint,
    tmp_path_factory: pytest.TempPathFactory,
    ranks: dict[str, int],
    alpha: float,
    alphas: dict[str, float],
    use_rslora: bool,
    dtype: torch.dtype,
    seed: int,
) -> None:
    directory = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(seed)
    shapes = {layer: base.tensors[f"{layer}.weight"].shape for layer in ranks}
    tensors = matrices({layer: (shape[0], shape[1]) for layer, shape in shapes.items()}, list(ranks.values()), dtype)
    save_file(tensors, directory / ADAPTER_WEIGHTS)
    patterns = {"rank_pattern": {layer.replace(".", r"\."): rank for layer, rank in ranks.items()}}
    patterns["alpha_pattern"] = {layer.replace(".", r"\."): value for layer, value in alphas.items()}
    config = {"peft_type": "LORA", "r": 5, "lora_alpha": alpha, "use_rslora": use_rslora, "target_modules": []}
    (directory / ADAPTER_CONFIG).write_text(json.dumps(config | patterns))

    adapter = read_adapter(directory, base)
    form = write(adapter, base, directory / "form")
    check_form(adapter, form)
    served = as_served(form)
    for layer, rank in ranks.items():
        scale = alphas.get(layer, alpha) / (math.sqrt(rank) if use_rslora else rank)
        a, b = (tensors[key(layer, side)].double() for side in "AB")
        bound = 1e-6 * abs(scale) * (b.abs() @ a.abs())
        assert ((served.pop(layer) - scale * (b @ a)).abs() <= bound).all()
    assert not any(filled.any() for filled in served.values())


def test_no_scale_at_all_adds_nothing(base: Checkpoint, tmp_path: Path) -> None:
    made = make_adapter(base.path, tmp_path / "adapter")
    change_config(made, lora_alpha=0)
    served = as_served(write(read_adapter(made, base), base, tmp_path / "form"))
    assert not any(tensor.any() for tensor in served.values())


@pytest.mark.parametrize("side", ["A", "B"])
def test_a_form_of_other_sums_is_noticed(base: Checkpoint, tmp_path: Path, side: str) -> None:
    adapter = read_adapter(make_adapter(base.path, tmp_path / "adapter", target_modules=["k_proj"]), base)
    form = write(adapter, base, tmp_path / "form")
    check_form(adapter, form)
    tensors = load_file(form / ADAPTER_WEIGHTS)
    tensors[key("model.layers.2.self_attn.k_proj", side)][1, 1] += 1e-3
    save_file(tensors, form / ADAPTER_WEIGHTS)
    with pytest.raises(IncompatibleCheckpoint, match=r"layers\.2\.self_attn\.k_proj: .*--merge"):
        check_form(adapter, form)


def test_a_filled_member_that_adds_something_is_noticed(base: Checkpoint, tmp_path: Path) -> None:
    adapter = read_adapter(make_adapter(base.path, tmp_path / "adapter", target_modules=["k_proj"]), base)
    form = write(adapter, base, tmp_path / "form")
    tensors = load_file(form / ADAPTER_WEIGHTS)
    for side in "AB":
        tensors[key("model.layers.0.self_attn.q_proj", side)] += 1
    save_file(tensors, form / ADAPTER_WEIGHTS)
    with pytest.raises(IncompatibleCheckpoint, match=r"layers\.0\.self_attn\.q_proj"):
        check_form(adapter, form)


def test_what_servers_can_adapt_is_servable(base: Checkpoint, tmp_path: Path) -> None:
    made = make_adapter(base.path, tmp_path / "adapter", target_modules=[*SHAPES["output layer"]["target_modules"]])
    assert why_not_servable(read_adapter(made, base), base) is None


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ("model.layers.0.self_attn.qkv_proj", r"servers cannot adapt layers such as model\.layers\.0\.self_attn\.qkv"),
        ("model.layers.0.mlp.experts.3.up_proj", "servers cannot adapt layers such as .*experts"),
        ("model.layers.9.mlp.up_proj", r"together with model\.layers\.9\.mlp\.gate_proj, which the base does not have"),
    ],
)
def test_what_servers_cannot_adapt_is_said(base: Checkpoint, tmp_path: Path, layer: str, reason: str) -> None:
    adapter = read_adapter(make_adapter(base.path, tmp_path / "adapter", target_modules=["q_proj"]), base)
    other = Adapter(adapter.path, adapter.config, {f"{layer}.weight": layer}, {})
    found = why_not_servable(other, base)
    assert found
    assert re.search(reason, found)
