"""The training record that comes with a checkpoint: how it was trained, and on which base."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.jsonfile import read_json
from psserve.zoo.manifest import TrainingRecord, describe

TRAINING_RECORD = "psserve_training.json"


def read_training(source: Path) -> TrainingRecord | None:
    """The checkpoint's training record, None if it has none."""
    path = source / TRAINING_RECORD
    if not path.exists():
        return None
    try:
        return TrainingRecord.model_validate(read_json(path))
    except ValidationError as error:
        raise IncompatibleCheckpoint(f"{path}: {describe(error)}: not a training record of psserve") from None
