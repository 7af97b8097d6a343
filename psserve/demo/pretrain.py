"""Pretraining of a small base: a plain causal language model, the loss on all tokens, on one machine.

For the demo zoo only. Users bring a pretrained base; decode modules are trained by psserve.training.finetune. The
state is kept in a file meanwhile, so that an interrupted run can go on.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from psserve.zoo.disk.storage import write_atomically

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class StateFile:
    """Where the state is kept. `run` says what is trained on what: the state of another run is passed over."""

    path: Path
    run: str

    def save(
        self,
        model: PreTrainedModel,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        losses: list[float],
    ) -> None:
        """Replace the file at once."""
        kept = {
            "run": self.run,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "losses": losses,
        }
        buffer = io.BytesIO()
        torch.save(kept, buffer)
        write_atomically(self.path, buffer.getvalue())

    def restore(
        self,
        model: PreTrainedModel,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> list[float]:
        """Put the state into place, and return the losses of the steps that it has behind it; none without a file."""
        if not self.path.exists():
            return []
        kept = torch.load(self.path, map_location=model.device, weights_only=True)
        if kept["run"] != self.run:
            return []
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        schedule.load_state_dict(kept["schedule"])
        losses: list[float] = kept["losses"]
        return losses


Blocks = Iterator[list[int]]
SAVE_EVERY = 500
"""Steps: some minutes of one core."""


def fast_dtype() -> torch.dtype:
    """bfloat16 where hardware multiplies it. On other CPUs it takes ten times as long as float32."""
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    capabilities = torch.cpu.get_capabilities()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if fast else torch.float32


@dataclass(frozen=True)
class PretrainConfig:
    """One pretraining run."""

    steps: int
    batch_size: int = 2
    """Blocks of tokens in one step. Few: a small model learns to copy by many updates rather than by many tokens."""
    learning_rate: float = 2e-3
    """Peak; it rises during the first 3% of the steps and falls to a tenth along a cosine."""
    weight_decay: float = 0.05
    seed: int = 0
    dtype: torch.dtype = field(default_factory=fast_dtype)
    """Of the matrix products; weights and optimizer stay in float32."""


@dataclass(frozen=True)
class StepStats:
    """What a step did: `loss` in nats a token, speed since the beginning."""

    step: int
    loss: float
    tokens_per_s: float
    seconds_left: float


def pretrain(
    model: PreTrainedModel,
    blocks: Blocks,
    config: PretrainConfig,
    report: Callable[[StepStats], None],
    state: StateFile | None = None,
) -> list[float]:
    """Train `model` (float32) in place on blocks of equal length, and return each step's loss.

    The same model, blocks and configuration give the same weights on the same machine; with `state`, which is kept
    every SAVE_EVERY steps and at the end, also after an interruption.
    """
    torch.manual_seed(config.seed)
    optimizer = make_optimizer(model, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, config.steps))
    model.train()
    losses = state.restore(model, optimizer, schedule) if state else []
    done = len(losses)
    if done < config.steps:
        skip(blocks, done * config.batch_size)
    begin = time.monotonic()
    tokens = 0
    for step in range(done + 1, config.steps + 1):
        batch = torch.tensor(list(islice(blocks, config.batch_size)), device=model.device)
        with torch.autocast(model.device.type, config.dtype, enabled=config.dtype != torch.float32):
            loss = model(batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        tokens += batch.numel()
        passed = time.monotonic() - begin
        report(StepStats(step, losses[-1], tokens / passed, passed / (step - done) * (config.steps - step)))
        if state and (step % SAVE_EVERY == 0 or step == config.steps):
            state.save(model, optimizer, schedule, losses)
    model.eval()
    return losses


def skip(blocks: Blocks, count: int) -> None:
    """Pass over the first `count` of them."""
    next(islice(blocks, count, count), None)


def make_optimizer(model: PreTrainedModel, config: PretrainConfig) -> torch.optim.AdamW:
    """AdamW, decaying matrices only."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), fused=True)


def rate(step: int, steps: int) -> float:
    """The learning rate at a step, as a share of its peak."""
    warmup = max(1, round(0.03 * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
