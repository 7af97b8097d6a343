from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo import Zoo
from psserve.zoo.checkpoints.architectures import expected_tensors
from psserve.zoo.checkpoints.safetensors import read_tensors
from psserve.zoo.synthetic.shapes import OWN, Architecture
from psserve.zoo.synthetic.zoo import new_model
from tests.zoo.conftest import Edit

VARIANTS: list[tuple[Architecture, dict[str, Any]]] = [
    *((architecture, {}) for architecture in OWN),
    ("qwen3", {"attention_bias": True}),
    ("qwen3_moe", {"attention_bias": True}),
    ("llama", {"tie_word_embeddings": True}),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
]


@pytest.mark.parametrize(("architecture", "fields"), VARIANTS)
def test_the_weights_are_those_that_transformers_writes(
    architecture: Architecture, fields: dict[str, Any], tmp_path: Path
) -> None:
    model = new_model(architecture, fields)
    model.save_pretrained(tmp_path)
    saved = {name: tensor.shape for name, tensor in read_tensors(tmp_path).items()}
    config = model.config.to_dict()
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    assert expected_tensors(type(model).__name__, config, head_dim) == saved


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("model.norm.weight"), r"model\.norm\.weight needs \[64\], found none"),
        (lambda tensors: tensors.update({"model.layers.7.x": np.ones(1)}), r"model\.layers\.7\.x is not in this arch"),
        (
            lambda tensors: tensors.update({"lm_head.weight": np.ones((511, 64), np.float32)}),
            r"lm_head\.weight needs \[512, 64\], found \[511, 64\]",
        ),
        (
            lambda tensors: [tensors.pop(name) for name in list(tensors) if "layers.3." in name],
            r"layers\.3\.self_attn\.q_proj\.weight needs .*; and 6 more",
        ),
    ],
)
def test_a_base_with_other_weights_is_refused(
    checkpoint: Path, tmp_path: Path, change: Callable[[dict[str, np.ndarray]], object], message: str
) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    change(tensors)
    save_file(tensors, checkpoint / "model.safetensors")
    with pytest.raises(IncompatibleCheckpoint, match=message):
        Zoo.create(tmp_path / "new", checkpoint)
    assert not (tmp_path / "new").exists()


def test_a_configuration_of_far_more_layers_is_refused_at_once(checkpoint: Path, edit: Edit, tmp_path: Path) -> None:
    layers = 10_000
    edit("config.json", lambda config: config.update(num_hidden_layers=layers, layer_types=["full_attention"] * layers))
    with pytest.raises(IncompatibleCheckpoint, match="10000 layers, and there are"):
        Zoo.create(tmp_path / "new", checkpoint)
