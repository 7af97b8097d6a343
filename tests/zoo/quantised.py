"""Quantised checkpoints of a test session, made once, and changes to copies of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]


def copy_of(checkpoint: Path, destination: Path, change: Callable[[Tensors], object] | None = None) -> Path:
    """A copy of `checkpoint`, its tensors changed."""
    shutil.copytree(checkpoint, destination)
    if change is not None:
        tensors = load_file(destination / "model.safetensors")
        change(tensors)
        save_file(tensors, destination / "model.safetensors")
    return destination


def configure(checkpoint: Path, fields: Mapping[str, Any]) -> Path:
    """Set fields of the quantization_config of `checkpoint`, which is returned."""
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] |= fields
    path.write_text(json.dumps(config))
    return checkpoint
