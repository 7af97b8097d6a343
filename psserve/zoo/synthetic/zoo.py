"""Tiny zoos of real architectures with random weights, for tests, demonstrations and benchmarks.

    python -m psserve.zoo.synthetic.zoo DIR --architecture qwen3

Nothing is trained, so the answers are noise; but they are exactly reproducible noise that depends on every token of the
prompt and on whose KV cache and whose weights computed it. That is what the exactness tests need.
"""

from __future__ import annotations

import argparse
import copy
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psserve import torchvision_ops
from psserve.errors import PsserveError, ZooError
from psserve.zoo.synthetic.shapes import OWN, Architecture, shape_of
from psserve.zoo.synthetic.tokenizer import write_tokenizer
from psserve.zoo.zoo import Zoo

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

DEFAULT_MODULES = ("alpha", "beta", "gamma")

SCALES = ((r"[qk]_proj|qkv_proj", 1.5), (r"[qk]_norm", 1.5), (r"o_proj", 2.0))
"""Parameter name -> factor on its usual scale. Sharp attention with a loud output makes the answer depend on the whole
prompt, while float32 noise stays at 1e-5 in the log-probabilities of 1,500-token prompts (3e-5 with 2.0 for q, k)."""

BIAS = 0.3
"""Standard deviation of biases."""
PERTURBATION = 0.3
"""How far a module is from the base, in standard deviations of each weight matrix. From 0.3 on, another module, and the
same module over its own KV cache, nearly always answer with another first token."""


def build_zoo(
    path: Path,
    architecture: Architecture = "qwen3",
    modules: Iterable[str] = DEFAULT_MODULES,
    seed: int = 0,
    *,
    name: str | None = None,
    device: str = "cpu",
    **shape: Any,
) -> Zoo:
    """Build a zoo at `path`: a random base in `path/base`, and modules that are the base plus independent noise.

    The same arguments give the same weights. `name` is the base's (default: the architecture and "-tiny"), `device` is
    where weights are drawn, and `shape` overrides fields of `shapes.py`. Modules are of kind "naive", which is the
    truth: nothing trained them. Raises ZooError if there is anything at `path`.
    """
    import torch

    if path.exists() and any(path.iterdir()):
        raise ZooError(f"{path}: not empty: choose another directory")
    path = path.resolve()
    building = path.with_name(f".{path.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        with torch.device(device):
            model = new_model(architecture, shape)
        generator = torch.Generator(device).manual_seed(seed)
        randomise(model, generator)
        save_model(model, building / "base")
        zoo = Zoo.create(building, building / "base", name=name or f"{architecture}-tiny")
        for module in modules:
            add_perturbed(zoo, module, model, generator)
        building.rename(path)  # at once, so that an interrupted build never looks like a zoo
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Zoo.open(path)


def new_model(architecture: Architecture, shape: dict[str, Any]) -> PreTrainedModel:
    """A model of this architecture, its weights not yet ours; `shape` overrides fields of `shapes.py`."""
    torchvision_ops.declare_missing()
    from transformers import AutoConfig, AutoModelForCausalLM

    special: dict[str, Any] = {
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }  # as write_tokenizer numbers them
    config = AutoConfig.for_model(architecture, **(special | shape_of(architecture, shape)))
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=config.dtype)
    return model


def randomise(model: PreTrainedModel, generator: torch.Generator) -> None:
    """Give matrices variance 1/fan-in and norms 1, times the factor in `SCALES`; biases the deviation `BIAS`.

    Embeddings have variance 1, unless they are the output layer too: answers would be one token again and again.
    """
    import torch

    tied = model.config.tie_word_embeddings
    for name, parameter in model.named_parameters():
        factor = next((factor for pattern, factor in SCALES if re.search(pattern, name)), 1.0)
        if is_norm(name, parameter):
            torch.nn.init.constant_(parameter, factor)
        else:
            fan_in = 1 if "embed_tokens" in name and not tied else parameter.shape[-1]
            std = BIAS if parameter.ndim == 1 else factor * fan_in**-0.5
            torch.nn.init.normal_(parameter, std=std, generator=generator)


def is_norm(name: str, parameter: torch.Tensor) -> bool:
    """Whether a parameter scales what it is given, and so is left near 1; all others are noise."""
    return parameter.ndim == 1 and not name.endswith(".bias")


def add_perturbed(zoo: Zoo, name: str, base: PreTrainedModel, generator: torch.Generator) -> None:
    """Add the module `name`: the base with noise added to every matrix and bias."""
    import torch

    model = copy.deepcopy(base)
    with torch.no_grad():
        for weight, parameter in model.named_parameters():
            if not is_norm(weight, parameter):
                noise = torch.empty_like(parameter).normal_(generator=generator)
                parameter.add_(noise * parameter.std(), alpha=PERTURBATION)
    with tempfile.TemporaryDirectory(dir=zoo.path, prefix=".synthetic-") as directory:
        save_model(model, Path(directory))
        zoo.add(name, Path(directory), task=f"synthetic module {name}", allow_naive=True)


def save_model(model: PreTrainedModel, directory: Path) -> None:
    """Write weights, configuration and tokenizer."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    model.save_pretrained(directory)
    write_tokenizer(directory, model.config.max_position_embeddings)


def main(arguments: list[str] | None = None) -> int:
    """Build a zoo from the command line."""
    parser = argparse.ArgumentParser(prog="python -m psserve.zoo.synthetic.zoo", description="Build a tiny random zoo.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--architecture", choices=list(OWN), default="qwen3")
    parser.add_argument("--modules", default=",".join(DEFAULT_MODULES), help="names, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    print(f"building a synthetic {options.architecture} zoo at {options.directory}", file=sys.stderr)
    try:
        build_zoo(options.directory, options.architecture, options.modules.split(","), options.seed)
    except PsserveError as error:
        print(f"psserve: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
