"""A zoo of LoRA adapters of many shapes, and what they must answer: PEFT's own sums in Transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from psserve.training.reference import load_model
from psserve.zoo import Zoo
from psserve.zoo.synthetic.shapes import Architecture
from psserve.zoo.synthetic.zoo import build_zoo
from tests.e2e.oracle import Oracle

LOUDNESS = 0.3
"""How much an adapter adds to a layer, in standard deviations of its weights; as psserve.zoo.synthetic.zoo has it."""

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "target_modules": "all-linear"},
    "rslora": {"r": 6, "use_rslora": True, "target_modules": ["q_proj", "v_proj", "down_proj"]},
    "patterns": {
        "r": 3,
        "target_modules": "all-linear",
        "rank_pattern": {"k_proj": 2, r"layers\.[01]\.mlp\.up_proj": 5},
        "alpha_pattern": {"q_proj": 3, r"layers\.1\.mlp\.down_proj": 16},
    },
    "some": {"r": 8, "target_modules": ["k_proj", "up_proj", "o_proj"], "layers_to_transform": [1, 2]},
}
"""Four that differ in rank, scale and layers."""
OUTPUT = {"r": 2, "target_modules": ["lm_head", "v_proj"]}
"""One that also changes the output layer, which a base must not tie."""


def build_adapters(directory: Path, architecture: Architecture, shapes: dict[str, dict[str, Any]]) -> Zoo:
    """Make a zoo of adapters, all as PEFT saves them. The same arguments give the same weights."""
    zoo = build_zoo(directory / "zoo", architecture, modules=())
    for seed, (name, shape) in enumerate(shapes.items()):
        zoo.add(name, make_adapter(zoo.base.path, directory / name, seed, **shape), allow_naive=True, store="adapter")
    return zoo


def make_adapter(base: Path, directory: Path, seed: int, **shape: Any) -> Path:
    """An adapter of random matrices, made and saved by PEFT, that is loud enough to change every answer."""
    model = load_model(base)
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(lora_alpha=8, init_lora_weights=False, task_type="CAUSAL_LM", **shape)
    adapted: Any = get_peft_model(model, config)
    for module in adapted.modules():
        if hasattr(module, "lora_A") and module.lora_A:
            a, b, scale = module.lora_A["default"].weight, module.lora_B["default"].weight, module.scaling["default"]
            loudness = scale * (b.detach() @ a.detach()).std()
            b.data *= LOUDNESS * module.base_layer.weight.std() / loudness
    adapted.save_pretrained(directory)
    return directory


class AdapterOracle(Oracle):
    """The reference of a zoo of adapters, which PEFT adds to the base."""

    def load(self, module: str) -> Any:
        """The base with one adapter."""
        from peft import PeftModel

        adapted: Any = PeftModel.from_pretrained(load_model(self.zoo.base.path), self.zoo.module(module).path)
        return adapted.merge_and_unload().eval().requires_grad_(False)
