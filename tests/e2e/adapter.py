"""A LoRA adapter of random matrices on a base's linear layers, as PEFT saves it."""

from __future__ import annotations

from pathlib import Path

import torch

from psserve.training.hf import AutoModelForCausalLM
from psserve.zoo import Module, Zoo
from psserve.zoo.checkpoints.architectures import TABLE
from psserve.zoo.synthetic.shapes import MIXTURES


def add_adapter(zoo: Zoo, name: str, directory: Path) -> Module:
    """Add a module that is the base with such an adapter merged into it; its answers are nearly always others."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(7)
    base = AutoModelForCausalLM.from_pretrained(zoo.base.path, dtype=torch.float32)
    mixture = TABLE[zoo.base.architecture].model_type in MIXTURES
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"] if mixture else "all-linear"
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(base, config).save_pretrained(directory)
    return zoo.add(name, directory, allow_naive=True, store="copy")
