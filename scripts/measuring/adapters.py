"""Random LoRA adapters, without PEFT, and zoos of many of them."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

from psserve.zoo import Module, Zoo
from psserve.zoo.disk.forms import FORMS, form_directory
from psserve.zoo.disk.manifest import MODULE_MANIFEST, ZOO_MANIFEST, write_manifest
from psserve.zoo.synthetic.zoo import build_zoo

ORIGINALS = 8
"""Adapters of a zoo that are unlike each other."""


def names(count: int) -> list[str]:
    return [f"adapter-{number:04}" for number in range(count)]


def make_zoo(directory: Path, count: int, base: Path | None, rank: int) -> Zoo:
    """The zoo at `directory` with `count` adapters, those that are there already among them.

    A few are added as users add them, and the others are copies of these: each takes a second to check. `base`: a
    checkpoint [default: a tiny random one].
    """
    if not (directory / ZOO_MANIFEST).exists():
        if base is None:
            build_zoo(directory, modules=())
        else:
            Zoo.create(directory, base.resolve())
    zoo = Zoo.open(directory)
    there = {module.name for module in zoo.modules()}
    for number, name in enumerate(names(min(count, ORIGINALS))):
        if name not in there:
            add_adapter(zoo, name, number, rank)
    originals = [zoo.module(name) for name in names(min(count, ORIGINALS))]
    for number, name in enumerate(names(count)):
        if name not in there and number >= ORIGINALS:
            copy_module(zoo, originals[number % ORIGINALS], name)
    return Zoo.open(directory)


def add_adapter(zoo: Zoo, name: str, seed: int, rank: int, replace: bool = False) -> None:
    """Add a random adapter to the zoo, or put it in the place of one."""
    source = zoo.path.with_name(f"{zoo.path.name}-adapter")
    write_adapter(source, zoo, seed, rank)
    zoo.add(name, source, allow_naive=True, store="adapter", replace=replace)


def copy_module(zoo: Zoo, module: Module, name: str) -> None:
    """Add the same adapter under another name."""
    shutil.copytree(form_directory(zoo.path, module.name, module.files).parent, zoo.path / FORMS / name)
    shutil.copytree(module.path, directory := module.path.with_name(name), ignore=lambda *_: [MODULE_MANIFEST])
    write_manifest(directory / MODULE_MANIFEST, module.manifest.model_copy(update={"name": name, "aliases": ()}))


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
