"""The state of a pretraining, kept in a file while it runs, so that an interrupted one can go on."""

from __future__ import annotations

import io
from dataclasses import dataclass
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
