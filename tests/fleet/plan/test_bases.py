"""What the planner counts of each architecture is what its weights and its KV cache take."""

from __future__ import annotations

from pathlib import Path

import pytest

from psserve.fleet.plan.allowance import activation_bytes
from psserve.fleet.plan.memory import KvShape, activations_of
from psserve.fleet.plan.quantised import parameters, served_bytes
from psserve.training.reference import load_model, prefill_kv
from psserve.zoo.synthetic.shapes import MIXTURES, OWN, Architecture
from psserve.zoo.synthetic.zoo import build_zoo


@pytest.mark.parametrize("architecture", OWN)
def test_bytes_of_weights_and_of_a_tokens_kv_are_those_of_transformers(
    architecture: Architecture, tmp_path: Path
) -> None:
    base = build_zoo(tmp_path / "zoo", architecture, modules=()).base
    model = load_model(base.path)
    layers = prefill_kv(model, [5])
    kv = sum(part.numel() * part.element_size() for layer in layers for part in layer)
    assert KvShape(base.num_layers, base.num_kv_heads, base.head_dim, "float32").token_bytes == kv
    weights = sum(part.numel() * part.element_size() for part in model.parameters())
    assert weights <= served_bytes(base, None, "float32") <= weights * 1.1  # the rest is the files' headers


@pytest.mark.parametrize("architecture", MIXTURES)
def test_experts_that_a_token_is_not_given_take_no_activations(architecture: Architecture, tmp_path: Path) -> None:
    few, many = (
        build_zoo(tmp_path / str(count), architecture, modules=(), num_experts=count, num_local_experts=count).base
        for count in (4, 16)
    )
    assert activations_of(few, "bfloat16") == activations_of(many, "bfloat16")
    assert activations_of(few, "float32") == 2 * activations_of(few, "bfloat16")


def test_all_of_a_dense_layer_counts(tmp_path: Path) -> None:
    base = build_zoo(tmp_path / "zoo", "llama", modules=()).base
    assert activations_of(base, "float32") == activation_bytes(parameters(base, "float32"), base.num_layers, 4)
