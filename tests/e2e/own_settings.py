"""A fine-tune of a tied base that brings its own output layer and its own end tokens, as people's tools save them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from psserve.zoo import Module, Zoo
from psserve.zoo.synthetic.zoo import PERTURBATION

OWN_ENDS = (0, 1)
"""`<|endoftext|>` and `<|im_start|>`, which end no answer of the base's."""
LOUDER = 1.3
"""Factor on their rows of the output layer: answers that end with them are then not rare."""


def add_with_own_settings(zoo: Zoo, name: str, directory: Path) -> Module:
    """Add a module to a zoo whose base ties its output layer. Its own config.json says that it ties it, too."""
    checkpoint = shutil.copytree(zoo.base.path, directory)
    generator = torch.Generator().manual_seed(12)
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    for tensor in tensors.values():
        if tensor.ndim > 1:
            tensor += PERTURBATION * tensor.std() * torch.randn(tensor.shape, generator=generator)
    tensors["lm_head.weight"][list(OWN_ENDS)] *= LOUDER
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    path = checkpoint / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": list(OWN_ENDS)}))
    return zoo.add(name, checkpoint, allow_naive=True)
