"""Zoos of random weights for comparisons of systems, and LoRA adapters for the same base."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RANK = 16
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def bench_zoo(path: Path, modules: Sequence[str], shape: dict[str, Any], device: str = "cpu") -> Path:
    """The zoo at `path`, built unless it is there already."""
    from psserve.zoo.synthetic.zoo import build_zoo

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        build_zoo(path, modules=modules, device=device, **shape)
    return path


def adapter_of(zoo: Path, module: str) -> Path:
    """A folder with a random LoRA adapter of all projections, in PEFT's layout, made unless it is there already.

    It is not the module: only its cost is of interest.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    folder = zoo / "adapters" / module
    if folder.exists():
        return folder
    tensors: dict[str, torch.Tensor] = {}
    with safe_open(zoo / "base" / "model.safetensors", framework="pt") as base:
        for name in (name for name in base.keys() if name.split(".")[-2] in TARGETS):  # noqa: SIM118 # no mapping
            rows, columns = base.get_slice(name).get_shape()
            layer = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{layer}.lora_A.weight"] = torch.randn(RANK, columns) / columns**0.5
            tensors[f"{layer}.lora_B.weight"] = torch.randn(rows, RANK) / rows**0.5
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": list(TARGETS), "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
