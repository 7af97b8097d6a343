"""Batches of conversations of about the same length: padding costs as much time as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from psserve.training.hf import LengthGroupedSampler, TrainerCallback


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
