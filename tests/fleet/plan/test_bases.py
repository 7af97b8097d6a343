"""What the planner counts of each architecture is what its weights and its KV cache take."""

from __future__ import annotations

from pathlib import Path

import pytest

from psserve.fleet.plan.memory import KvShape
from psserve.fleet.plan.quantised import served_bytes
from psserve.training.reference import load_model, prefill_kv
from psserve.zoo.synthetic.shapes import OWN, Architecture
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
