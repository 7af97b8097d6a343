"""What the user decides about a training run. Defaults are the paper's (arXiv 2602.12029) where it tells them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from psserve.errors import UsageError

Method = Literal["cache-conditioned", "icarus", "full"]

LEARNING_RATE = 2e-5
LORA_LEARNING_RATE = 2e-4
MAX_LENGTH = 1024
"""Tokens of a conversation."""


@dataclass(frozen=True)
class LoraConfig:
    """Train a low-rank update of some linear layers."""

    rank: int = 16
    alpha: int | None = None
    """Scale of the update, over the rank [default: 2 * rank]."""
    targets: tuple[str, ...] = ()
    """Names of linear layers, e.g. q_proj [default: all but the output layer]."""
    merge: bool = False
    """Merge it into the base's weights at the end, for a module with servers of its own."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UsageError(f"--rank {self.rank}: must be at least 1")


@dataclass(frozen=True)
class FinetuneConfig:
    """A training run that makes module `name` of the conversations in `data`. UsageError for what makes no sense."""

    name: str
    data: tuple[Path, ...]
    method: Method = "cache-conditioned"
    """On the base's KV cache; "icarus": an adapter that generates over the base's KV of what it generates, too; or
    "full": the module prefills for itself, as in ordinary fine-tuning."""
    lora: LoraConfig | None = None
    """None trains all parameters."""
    epochs: float = 1.0
    steps: int | None = None
    """Optimizer steps; overrides `epochs`."""
    learning_rate: float | None = None
    """Peak of a cosine schedule that ends at 0 [default: 2e-5, with LoRA 2e-4]."""
    warmup: float = 0.03
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = 0.1
    max_grad_norm: float | None = None
    """Gradients of a greater norm are scaled down to it [default: none is]."""
    batch_size: int = 8
    """Conversations in one forward pass, on each device."""
    accumulation: int = 2
    """Forward passes for one optimizer step."""
    max_length: int | None = None
    """Longest conversation, in tokens [default: 1,024, or the base's context length where that is less]."""
    seed: int = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic; what is trained is kept in float32 [default: bfloat16 on GPUs, else float32]."""
    gradient_checkpointing: bool = False
    save_every: int = 500
    """Steps between checkpoints."""
    log_every: int = 10
    """Steps between log entries."""
    report_to: tuple[str, ...] = ()
    """Logging integrations of Transformers, e.g. tensorboard."""
    task: str = ""
    examples: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    out: Path | None = None
    """Folder of the run [default: .training/NAME in the zoo]."""
    resume: bool = False
    overwrite: bool = False
    """Replace a module or a run of this name."""

    def __post_init__(self) -> None:
        positive = ("epochs", "batch_size", "accumulation", "save_every", "log_every")
        optional = ("steps", "learning_rate", "max_length", "max_grad_norm")
        for name in (*positive, *(name for name in optional if getattr(self, name) is not None)):
            if not getattr(self, name) > 0:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be more than 0")
        if not self.weight_decay >= 0:
            raise UsageError(f"--weight-decay {self.weight_decay}: must not be negative")
        if not 0 <= self.warmup < 1:
            raise UsageError(f"--warmup {self.warmup}: must be a share from 0 up to, but less than, 1")
        if self.resume and self.overwrite:
            raise UsageError("--resume goes on with a run, --overwrite throws it away: give one of them")
        if self.method == "icarus" and not self.stays_adapter:
            raise UsageError(
                "--icarus trains an adapter that stays one: give --lora, without --merge (experts have no such adapter)"
            )

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate, default filled in."""
        return self.learning_rate or (LORA_LEARNING_RATE if self.lora else LEARNING_RATE)

    @property
    def stays_adapter(self) -> bool:
        """Whether the module is to be a LoRA adapter, and not weights with one merged into them."""
        return self.lora is not None and not self.lora.merge

    def hyperparameters(self) -> dict[str, bool | int | float | str]:
        """All that decides the weights, beside base, data and seed: `processes` have a batch each."""
        schedule = ("steps", "warmup", "weight_decay", "max_grad_norm", "batch_size", "accumulation")
        fields = (*schedule, "max_length", "dtype")
        chosen = {name: value for name in fields if (value := getattr(self, name)) is not None}
        if self.steps is None:
            chosen["epochs"] = self.epochs
        if self.lora:
            chosen["lora_rank"] = self.lora.rank
            chosen["lora_alpha"] = self.lora.alpha or 2 * self.lora.rank
            every = "all-linear" if self.method != "icarus" else "all-linear but k_proj,v_proj"
            chosen["lora_targets"] = ",".join(self.lora.targets) or every
        return chosen | {"learning_rate": self.peak_learning_rate, "processes": processes()}


def processes() -> int:
    """How many processes `accelerate launch` has started for this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))
