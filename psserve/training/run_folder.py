"""The folder of a training run, and the record that goes with its module: what it was made of.

run.json        what is trained, on what: a run can only be resumed as the same
checkpoints/    the Trainer's, to resume from; gone when the module is in the zoo
metrics.jsonl   one line for each log entry
loss.png        the loss over the steps
adapter/        the LoRA adapter and its training record, if there is one (`psserve add-model` takes it)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from psserve.errors import TrainingError
from psserve.training.config import FinetuneConfig
from psserve.zoo.adding.incoming import TRAINING_RECORD
from psserve.zoo.disk.manifest import TrainingRecord, hash_bytes, hash_file
from psserve.zoo.disk.model import Base
from psserve.zoo.disk.storage import write_atomically

Description = dict[str, Any]

OVERWRITE = "overwrite"
"""The field of run.json that says what becomes of a module of the same name, and nothing of the weights."""
TRAINER_STATE = "trainer_state.json"
"""The last file of a checkpoint that the Trainer writes."""


@dataclass(frozen=True)
class RunFolder:
    """The places in a run's folder."""

    path: Path

    @property
    def description(self) -> Path:
        return self.path / "run.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def plot(self) -> Path:
        return self.path / "loss.png"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def module(self) -> Path:
        """The checkpoint that the zoo imports; only for a moment."""
        return self.path / "module"

    def replaces(self) -> bool:
        """Whether the run that is here was started to replace a module."""
        return self.description.exists() and bool(json.loads(self.description.read_text()).get(OVERWRITE))

    def check(self, config: FinetuneConfig, wanted: Description) -> None:
        """Raise TrainingError unless the folder is free for this run, or holds the run that is to be resumed."""
        if config.resume:
            self.check_same(wanted)
        elif self.path.exists() and any(self.path.iterdir()):
            if not self.description.exists():
                raise TrainingError(f"{self.path}: not empty, and no run of psserve: choose another folder")
            if not config.overwrite:
                raise TrainingError(
                    f"{self.path}: there is a run already: go on with --resume, or start anew with --overwrite"
                )

    def check_same(self, wanted: Description) -> None:
        """Raise TrainingError unless the run here was described as `wanted`."""
        if not self.description.exists():
            raise TrainingError(f"{self.path}: no run to resume: start one without --resume")
        found = json.loads(self.description.read_text())
        for key in sorted((wanted.keys() | found.keys()) - {OVERWRITE}):
            if wanted.get(key) != found.get(key):
                raise TrainingError(
                    f"{self.path}: cannot resume: {key} was {found.get(key)!r} and is now {wanted.get(key)!r}: "
                    "start anew with --overwrite"
                )

    def prepare(self, config: FinetuneConfig, wanted: Description) -> None:
        """Make the folder, empty but for run.json; to resume, drop what a killed run left half-written."""
        if config.resume:
            for checkpoint in self.checkpoints.glob("checkpoint-*"):
                if not is_complete_checkpoint(checkpoint):
                    shutil.rmtree(checkpoint)
            return
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        write_atomically(self.description, json.dumps(wanted | {OVERWRITE: config.overwrite}, indent=2).encode())

    def last_checkpoint(self) -> Path | None:
        """The newest complete checkpoint."""
        found = [path for path in self.checkpoints.glob("checkpoint-*") if is_complete_checkpoint(path)]
        return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)

    def finished(self) -> bool:
        """Whether the last step is done, and only making the module of it is left."""
        last = self.last_checkpoint()
        if last is None:
            return False
        state = json.loads((last / TRAINER_STATE).read_text())
        return bool(state["global_step"] >= state["max_steps"])

    def clean(self) -> None:
        """Remove what is of no use once the module is in the zoo, but keep a LoRA adapter."""
        last = self.last_checkpoint()
        if last and (last / "adapter_config.json").exists():
            self.adapter.mkdir(exist_ok=True)
            for file in [*last.glob("adapter_*"), self.module / TRAINING_RECORD]:
                file.replace(self.adapter / file.name)
        for path in (self.checkpoints, self.module):
            shutil.rmtree(path, ignore_errors=True)


def is_complete_checkpoint(checkpoint: Path) -> bool:
    """Whether the Trainer wrote all of it."""
    return (checkpoint / TRAINER_STATE).exists()


def run_description(config: FinetuneConfig, base_fingerprint: str, data_hash: str) -> Description:
    """All that decides the weights of a run; `config` with type of arithmetic and length chosen."""
    return {
        "name": config.name,
        "method": config.method,
        "base_fingerprint": base_fingerprint,
        "data_hash": data_hash,
        "seed": config.seed,
        **config.hyperparameters(),
    }


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
