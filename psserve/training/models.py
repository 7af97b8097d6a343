"""The models of a run: the frozen base, the module that learns, and the checkpoint that goes into the zoo."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import torch

from psserve.errors import TrainingError
from psserve.training.cache_loss import OVER_BASE_KV
from psserve.training.config import LoraConfig
from psserve.training.hf import AutoModelForCausalLM, PreTrainedModel
from psserve.training.reference import in_format, load_model
from psserve.zoo.checkpoints.checkpoint import read_checkpoint


def load_base(checkpoint: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The frozen base, with the weights' type it computes KV in."""
    return in_format(load_model(checkpoint), dtype)


def new_module(checkpoint: Path) -> PreTrainedModel:
    """A module that starts from the base's weights, all of which it trains.

    It is float32 whatever the base computes in, because small steps are lost in bfloat16.
    """
    module: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation=OVER_BASE_KV, use_safetensors=True, local_files_only=True
    )
    return module


def new_lora_module(base: PreTrainedModel, lora: LoraConfig, *, share: bool) -> PreTrainedModel:
    """The base with a new adapter (float32), which is all that trains. TrainingError for an unknown target.

    With `share` the frozen weights are the base's own and cost no memory; what moves or splits a model's weights
    (FSDP, DeepSpeed) needs a copy.
    """
    kept = {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())} if share else {}
    module = copy.deepcopy(base, kept)
    module.set_attn_implementation(OVER_BASE_KV)
    return with_adapter(module, lora)


def with_adapter(model: PreTrainedModel, lora: LoraConfig) -> PreTrainedModel:
    """`model` with an untrained LoRA adapter; TrainingError for a target that it does not have."""
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    check_targets(model, lora.targets)
    config = PeftConfig(
        r=lora.rank,
        lora_alpha=lora.alpha or 2 * lora.rank,
        target_modules=list(lora.targets) or "all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def check_targets(model: PreTrainedModel, targets: tuple[str, ...]) -> None:
    """Raise TrainingError if the model has no linear layer of one of these names that can be adapted by itself."""
    linear = {
        name.rpartition(".")[2]
        for name, part in model.named_modules()
        if isinstance(part, torch.nn.Linear) and part.weight is not model.get_input_embeddings().weight
    }
    for target in targets:
        if target not in linear:
            raise TrainingError(
                f"LoRA target {target!r}: the base has no such layer of its own: choose of {', '.join(sorted(linear))}"
            )


def write_adapter(trained: Path, destination: Path) -> None:
    """Copy the LoRA adapter of a checkpoint of PEFT to `destination`."""
    shutil.rmtree(destination, ignore_errors=True)
    destination.mkdir()
    for file in trained.glob("adapter_*"):
        shutil.copyfile(file, destination / file.name)


def write_checkpoint(trained: Path, base: Path, destination: Path) -> None:
    """Make the full checkpoint of a module at `destination`, in the element type of the base.

    `trained` holds the module's weights or its LoRA adapter, as Transformers and PEFT save them.
    """
    original = read_checkpoint(base)
    dtype = getattr(torch, original.dtype)
    if (trained / "adapter_config.json").exists():
        from peft import PeftModel

        adapted = PeftModel.from_pretrained(in_format(load_model(base), torch.float32), trained)
        model = adapted.merge_and_unload().to(dtype)
    else:
        model = AutoModelForCausalLM.from_pretrained(trained, dtype=dtype, use_safetensors=True, local_files_only=True)
    shutil.rmtree(destination, ignore_errors=True)
    model.save_pretrained(destination)
    for file in original.auxiliary_files:
        shutil.copyfile(file, destination / file.name)
