"""Random LoRA adapters, without PEFT."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psserve.zoo import Zoo


def write_adapter(directory: Path, zoo: Zoo, seed: int, rank: int) -> None:
    """A random adapter of the queries, keys, values and outputs of every layer, as PEFT would save it."""
    import torch
    from safetensors.torch import save_file

    from psserve.zoo.disk.storage import read_json

    config = read_json(zoo.base.path / "config.json")
    hidden, queries = config["hidden_size"], config["num_attention_heads"] * zoo.base.head_dim
    keys = zoo.base.num_kv_heads * zoo.base.head_dim
    shapes = {"q": (hidden, queries), "k": (hidden, keys), "v": (hidden, keys), "o": (queries, hidden)}
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer, (name, (inputs, outputs)) in itertools.product(range(zoo.base.num_layers), shapes.items()):
        prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}_proj"
        tensors[f"{prefix}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) * inputs**-0.5
        tensors[f"{prefix}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator) * 0.3 * rank**-0.5
    directory.mkdir(exist_ok=True)
    save_file(tensors, directory / "adapter_model.safetensors")
    plain = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank}
    plain["target_modules"] = [f"{name}_proj" for name in shapes]
    (directory / "adapter_config.json").write_text(json.dumps(plain))
