"""The training record of a run in a trainer of another library, in the words of psserve's own."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from psserve.training.progress import final_loss
from psserve.training.run_folder import PACKAGES
from psserve.zoo.disk.manifest import TrainingRecord
from psserve.zoo.disk.model import Base

Hyperparameters = dict[str, bool | int | float | str]


def trainer_record(trainer: Any, base: Base) -> TrainingRecord:
    """The record of what `trainer` (a Transformers Trainer) has done so far on the KV cache of `base`.

    Its data came as a data set and not as files, so there is no hash of them.
    """
    metrics = {"steps": float(trainer.state.global_step)}
    if losses := [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]:
        metrics["loss"] = final_loss(losses)
    libraries = {kind.__module__.partition(".")[0] for kind in type(trainer).__mro__}
    packages = (*PACKAGES, "trl") if "trl" in libraries else PACKAGES
    return TrainingRecord(
        method="cache-conditioned",
        base_fingerprint=base.fingerprint,
        hyperparameters=hyperparameters(trainer),
        seed=trainer.args.seed,
        versions={package: version(package) for package in packages},
        metrics=metrics,
    )


def hyperparameters(trainer: Any) -> Hyperparameters:
    """All that decides the weights, beside base, data and seed, called as `psserve finetune` calls it."""
    arguments = trainer.args
    chosen: Hyperparameters = {
        "learning_rate": arguments.learning_rate,
        "schedule": str(arguments.lr_scheduler_type.value),
        "warmup": arguments.warmup_steps,
        "weight_decay": arguments.weight_decay,
        "max_grad_norm": arguments.max_grad_norm,
        "batch_size": arguments.per_device_train_batch_size,
        "accumulation": arguments.gradient_accumulation_steps,
        "processes": arguments.world_size,
        "dtype": "bfloat16" if arguments.bf16 else "float16" if arguments.fp16 else "float32",
    }
    if arguments.max_steps > 0:
        chosen["steps"] = arguments.max_steps
    else:
        chosen["epochs"] = arguments.num_train_epochs
    if (length := getattr(arguments, "max_length", None)) is not None:
        chosen["max_length"] = length
    return chosen | lora_hyperparameters(trainer.accelerator.unwrap_model(trainer.model))


def lora_hyperparameters(model: Any) -> Hyperparameters:
    """Those of the LoRA adapter of a model, if it has one."""
    adapters = [config for config in getattr(model, "peft_config", {}).values() if config.peft_type == "LORA"]
    if not adapters:
        return {}
    first, targets = adapters[0], adapters[0].target_modules
    named = targets if isinstance(targets, str) else ",".join(sorted(targets))
    return {"lora_rank": first.r, "lora_alpha": first.lora_alpha, "lora_targets": named}
