"""Batches of conversations of about the same length: padding costs as much time as tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from psserve.training.hf import LengthGroupedSampler


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
        """Choose the order of this epoch. Accelerate calls it before each one."""
        self.generator.manual_seed(self.seed + epoch)
