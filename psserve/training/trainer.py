"""Transformers' Trainer with our loss: accumulation, bf16, checkpoints, FSDP and integrations are its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from psserve.training.answer_loss import AnswerLoss
from psserve.training.batch import IGNORED, Batch, cache_batch, full_batch
from psserve.training.cache_loss import cache_logits, full_logits
from psserve.training.config import FinetuneConfig
from psserve.training.hf import (
    LengthGroupedSampler,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class LengthGrouped(LengthGroupedSampler):  # type: ignore[misc] # Transformers has no types
    """Transformers' sampler, whose order depends on nothing but the seed and the epoch.

    So a run that is resumed, in whatever epoch, goes on in the order of an uninterrupted one. `lengths` in tokens;
    `batch` is the number of conversations of an optimizer step.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        super().__init__(batch, lengths=list(lengths), generator=torch.Generator())
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch."""
        self.generator.manual_seed(self.seed + epoch)


class EpochOrder(TrainerCallback):  # type: ignore[misc] # Transformers has no types
    """Chooses the order before each epoch. Accelerate does too, but not when several processes resume amid an epoch."""

    def __init__(self, sampler: LengthGrouped) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.sampler.set_epoch(int(state.epoch or 0))


class ModuleTrainer(AnswerLoss, Trainer):  # type: ignore[misc] # Transformers has no types
    """Trains `model` over the KV of `base`, or on its own (method "full", `base` None).

    The base is no part of the model: it is frozen, never saved, has no optimizer state, and is whole on every device.
    """

    def __init__(self, base: PreTrainedModel | None, model: PreTrainedModel, **options: Any) -> None:
        super().__init__(model=model, data_collator=cache_batch if base else full_batch, **options)
        self.remove_callback(PrinterCallback)
        self.sampler = self.make_sampler()
        self.add_callback(EpochOrder(self.sampler))
        self.base = base.to(self.args.device) if base else None
        self.answer_tokens = torch.zeros((), dtype=torch.long, device=self.args.device)
        """Answer tokens this process has trained on since it started; on the device, so that counting never waits."""

    def answer_logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        self.answer_tokens += batch["labels"].ne(IGNORED).sum()
        return self.module_logits(model, batch)

    def module_logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The module's logits [B, Q, vocab], by the rule it is trained by."""
        return full_logits(model, batch) if self.base is None else cache_logits(self.base, model, batch)

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGrouped:
        return self.sampler

    def make_sampler(self) -> LengthGrouped:
        """Conversations of like length come together: Transformers' own way, whose lengths need no copy of the data."""
        lengths = [len(conversation.input_ids) for conversation in self.train_dataset]
        arguments = self.args  # an optimizer step has the same conversations however it is split
        step = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
        return LengthGrouped(lengths, step, arguments.seed)


class RunArguments(TrainingArguments):  # type: ignore[misc] # Transformers has no types
    """Transformers' arguments, with which several processes on CPUs can resume: PyTorch loads nothing to "cpu:0"."""

    @property
    def device(self) -> torch.device:
        device: torch.device = super().device
        return torch.device("cpu") if device.type == "cpu" else device


def training_arguments(config: FinetuneConfig, out: Path, dtype: torch.dtype) -> TrainingArguments:
    """The Trainer's arguments for this run; its checkpoints go to `out`."""
    arguments = RunArguments(
        output_dir=str(out),
        num_train_epochs=config.epochs,
        max_steps=config.steps or -1,
        learning_rate=config.peak_learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm or math.inf,  # 0 would clip nothing either, and log no norm
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulation,
        gradient_checkpointing=config.gradient_checkpointing,
        bf16=dtype == torch.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        seed=config.seed,
        save_steps=config.save_every,
        save_total_limit=1,
        logging_steps=config.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to=list(config.report_to) or "none",
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
    )
    # Several GPUs in one process would be DataParallel, which knows nothing of the base: `accelerate launch` instead.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
