"""The training record that goes with a module: what it was made of, so that it can be made again."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from psserve.training.config import FinetuneConfig
from psserve.zoo.adding.incoming import TRAINING_RECORD
from psserve.zoo.disk.manifest import TrainingRecord, hash_bytes, hash_file
from psserve.zoo.disk.model import Base

PACKAGES = ("psserve", "torch", "transformers", "accelerate", "peft")


def training_record(config: FinetuneConfig, base: Base, data: str, metrics: dict[str, float]) -> TrainingRecord:
    """The record of a run on data of the hash `data`."""
    return TrainingRecord(
        method=config.method,
        base_fingerprint=base.fingerprint,
        data_hash=data,
        hyperparameters=config.hyperparameters(),
        seed=config.seed,
        versions={package: version(package) for package in PACKAGES},
        metrics=metrics,
    )


def write_record(checkpoint: Path, record: TrainingRecord) -> None:
    """Put the record where `Zoo.add` looks for it."""
    (checkpoint / TRAINING_RECORD).write_text(record.model_dump_json(indent=2, exclude_none=True))


def data_hash(files: Iterable[Path]) -> str:
    """BLAKE3, in hex, of the files' hashes in order: of what was trained on, wherever it lies."""
    return hash_bytes("".join(hash_file(file) for file in files).encode())
