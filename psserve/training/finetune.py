"""Fine-tuning from start to end: check everything, train in a run folder, put the module into the zoo."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError

from psserve.errors import TrainingError
from psserve.training.batch import Tokenized
from psserve.training.checks import (
    check_base_unchanged,
    check_disk_space,
    check_parallelism,
    check_unquantised,
    length_limit,
    load_data,
    storable,
)
from psserve.training.config import FinetuneConfig, Method
from psserve.training.hf import PreTrainedModel, TrainingArguments, set_seed
from psserve.training.icarus import IcarusTrainer, query_side
from psserve.training.models import load_base, new_lora_module, new_module, write_adapter, write_checkpoint
from psserve.training.progress import RunLog, StopOnSignal, final_loss, read_metrics
from psserve.training.run_folder import RunFolder, data_hash, run_description, training_record, write_record
from psserve.training.trainer import ModuleTrainer, training_arguments
from psserve.zoo import Zoo
from psserve.zoo.checkpoints.served import check_made_before
from psserve.zoo.disk.manifest import check_text
from psserve.zoo.disk.model import Base, Module
from psserve.zoo.disk.storage import real_path

DISK_FULL = 64 << 20
"""Bytes: with less than this left, a failed write is taken to have failed for lack of room."""


@dataclass(frozen=True)
class FinetuneResult:
    """A finished run: the module in the zoo, the run's folder, its steps, its final loss (nats per answer token).

    An adapter by ICaRus' rule is in the run's folder alone.
    """

    module: Module | None
    run: Path
    steps: int
    loss: float


def finetune(zoo: Zoo, config: FinetuneConfig) -> FinetuneResult:
    """Train a module for `zoo` and add it, unless no server follows its rule. Progress goes to stderr.

    Raises PsserveError. Nothing is written until everything is checked, and the zoo stays as it was until the module is
    complete. An interrupted run (TrainingError) goes on with `resume`, and ends as it would have without interruption.
    Under `accelerate launch` every process calls this; the first one writes.
    """
    lora, length = storable(config.lora, zoo.base), length_limit(zoo.base, config)
    config = replace(config, dtype=compute_dtype(config), lora=lora, max_length=length)
    folder = RunFolder(real_path(config.out or zoo.path / ".training" / config.name))
    for text in (str(folder.path), config.task, *config.examples):  # which the module's manifest gets in the end
        check_text(text)
    replacing = config.overwrite or (config.resume and folder.replaces())
    zoo.check_new(config.name, config.aliases, replacing)
    check_unquantised(zoo.base)
    check_made_before(zoo.base)
    check_base_unchanged(zoo.base)
    check_parallelism()
    conversations = load_data(zoo.base, config)
    description = run_description(config, zoo.base.fingerprint, data_hash(config.data))
    folder.check(config, description)
    check_disk_space(folder.path, zoo, config)
    dtype = getattr(torch, config.dtype)
    base, module = load_models(zoo.base, config, dtype)

    arguments = training_arguments(config, folder.checkpoints, dtype)
    processes = arguments.distributed_state
    processes.wait_for_everyone()  # until all have checked, there must be nothing new to find
    if processes.is_main_process:
        folder.prepare(config, description)
    processes.wait_for_everyone()
    if not folder.finished():
        train_to_end(arguments, folder, base, module, conversations, config.method)
    if processes.is_main_process:
        add_trained_module(zoo, config, folder, str(description["data_hash"]), replacing)
    processes.wait_for_everyone()
    return result(zoo, config, folder)


def compute_dtype(config: FinetuneConfig) -> Literal["float32", "bfloat16"]:
    """The type to compute in."""
    if config.dtype != "auto":
        return config.dtype
    return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"


def load_models(base: Base, config: FinetuneConfig, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedModel]:
    """The frozen base and the module to train; TrainingError for a LoRA target that does not exist."""
    set_seed(config.seed)  # a new adapter is random
    frozen = load_base(base.path, dtype)
    if config.lora is None:
        return frozen, new_module(base.path)
    lora = config.lora
    if config.method == "icarus":
        lora = replace(lora, targets=query_side(frozen, lora.targets))
    split = any(os.environ.get(name) == "true" for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"))
    return frozen, new_lora_module(frozen, lora, share=not split)


def train_to_end(
    arguments: TrainingArguments,
    folder: RunFolder,
    base: PreTrainedModel,
    module: PreTrainedModel,
    conversations: Sequence[Tokenized],
    method: Method,
) -> None:
    """Train from the folder's last checkpoint, or from the start, to a checkpoint of the last step."""
    kind = IcarusTrainer if method == "icarus" else ModuleTrainer
    trainer = kind(None if method == "full" else base, module, args=arguments, train_dataset=conversations)
    stop = StopOnSignal()
    trainer.add_callback(stop)
    trainer.add_callback(RunLog(folder.metrics, sys.stderr, lambda: int(trainer.answer_tokens)))
    with disk_full_explained(folder.path):
        trainer.train(resume_from_checkpoint=folder.last_checkpoint())
    arguments.distributed_state.wait_for_everyone()  # a launcher ends all processes when the first one has failed
    done, steps = trainer.state.global_step, trainer.state.max_steps
    if stop.stopped and done < steps:
        raise TrainingError(f"stopped after step {done} of {steps}: go on with --resume")


@contextmanager
def disk_full_explained(*directories: Path) -> Iterator[None]:
    """Turn the errors of PyTorch and safetensors that a full disk causes into a TrainingError."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        full = [path for path in directories if shutil.disk_usage(path).free < DISK_FULL]
        if not full:
            raise
        raise TrainingError(f"{full[0]}: disk full: make room, then go on with --resume") from error


def add_trained_module(zoo: Zoo, config: FinetuneConfig, folder: RunFolder, data: str, replacing: bool) -> None:
    """Make the module of the last checkpoint with its training record, and add it to the zoo if it can be served."""
    steps, loss = outcome(folder)
    if not math.isfinite(loss):
        raise TrainingError(f"{folder.path}: the loss became {loss}: start anew with a lower --learning-rate")
    plot_loss(read_metrics(folder.metrics), f"{config.name} on {zoo.base.name}", folder.plot)
    trained = folder.last_checkpoint()
    assert trained is not None, "training ends with a checkpoint"
    with disk_full_explained(folder.path, zoo.path):
        if config.stays_adapter:
            write_adapter(trained, folder.module)
        else:
            write_checkpoint(trained, zoo.base.path, folder.module)
        write_record(folder.module, training_record(config, zoo.base, data, {"loss": loss, "steps": steps}))
        if config.method != "icarus":
            add_to_zoo(zoo, config, folder, replacing)
    folder.clean()


def add_to_zoo(zoo: Zoo, config: FinetuneConfig, folder: RunFolder, replacing: bool) -> None:
    """Add the finished module to the zoo."""
    zoo.add(
        config.name,
        folder.module,
        config.task,
        config.examples,
        config.aliases,
        allow_naive=config.method == "full",
        replace=replacing,
        store=None if config.stays_adapter else "copy",
    )


def plot_loss(entries: Sequence[dict[str, float]], title: str, path: Path) -> None:
    """Draw the loss (nats per answer token) of log entries, with a running mean over about a twentieth of them."""
    from matplotlib.figure import Figure

    steps, losses = [entry["step"] for entry in entries], [entry["loss"] for entry in entries]
    window = max(len(losses) // 20, 1)
    means = [sum(part := losses[max(0, at - window + 1) : at + 1]) / len(part) for at in range(len(losses))]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, losses, color="lightsteelblue", linewidth=1, label="as logged")
    axes.plot(steps, means, color="navy", linewidth=1.5, label=f"mean of {window}")
    axes.set(title=title, xlabel="optimizer step", ylabel="loss (nats per answer token)")
    axes.legend()
    figure.savefig(path, dpi=120)


def result(zoo: Zoo, config: FinetuneConfig, folder: RunFolder) -> FinetuneResult:
    """What there is when all is done."""
    steps, loss = outcome(folder)
    module = None if config.method == "icarus" else zoo.module(config.name)
    return FinetuneResult(module, folder.path, steps, loss)


def outcome(folder: RunFolder) -> tuple[int, float]:
    """The number of steps, and the loss at the end, as metrics.jsonl has them."""
    entries = read_metrics(folder.metrics)
    return int(entries[-1]["step"]), final_loss([entry["loss"] for entry in entries])
