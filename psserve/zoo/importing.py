"""Import of a full checkpoint: checked against the base, copied beside its place, and renamed into it when complete."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.checkpoint import Checkpoint, read_checkpoint
from psserve.zoo.compatibility import check_compatible, warnings
from psserve.zoo.finite import check_finite
from psserve.zoo.hashing import CHUNK, new_hash
from psserve.zoo.jsonfile import read_json
from psserve.zoo.manifest import (
    MODULE_MANIFEST,
    FileRecord,
    ModuleManifest,
    TrainingRecord,
    describe,
    read_manifest,
    write_manifest,
)
from psserve.zoo.model import Base
from psserve.zoo.storage import sync_directory

TRAINING_RECORD = "psserve_training.json"
STAGING = ".importing"
REPLACED = ".replaced"


@dataclass(frozen=True)
class NewModule:
    """What the user says about a module to import: `source` is the checkpoint's directory."""

    name: str
    source: Path
    task: str = ""
    examples: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    allow_naive: bool = False


def import_module(zoo: Path, base: Base, new: NewModule) -> None:
    """Check and copy `new` to `modules/NAME` of the zoo at `zoo`, whose lock the caller holds.

    Raises IncompatibleCheckpoint. The zoo is unchanged unless this returns.
    """
    checkpoint = read_checkpoint(new.source)
    base_checkpoint = read_checkpoint(base.path)
    check_compatible(base.name, base_checkpoint, checkpoint)
    for shard in checkpoint.shards:
        check_finite(shard)
    training = read_training(new.source)
    trained_for_base = check_trained(new, base, training)

    staging = zoo / STAGING
    shutil.rmtree(staging, ignore_errors=True)  # left by an import that was killed: the lock says it is not running
    staging.mkdir()
    try:
        files = copy_weights(checkpoint, staging)
        manifest = ModuleManifest(
            name=new.name,
            task=new.task,
            examples=new.examples,
            aliases=new.aliases,
            kind="cache-conditioned" if trained_for_base else "naive",
            created=int(time.time()),
            base_fingerprint=base.fingerprint,
            notes=(*warnings(base_checkpoint, checkpoint), *same_as_base(base, files)),
            training=training,
            files=files,
        )
        write_manifest(staging / MODULE_MANIFEST, manifest)
        publish(staging, zoo / "modules" / new.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def read_training(source: Path) -> TrainingRecord | None:
    """The checkpoint's training record, None if it has none."""
    path = source / TRAINING_RECORD
    if not path.exists():
        return None
    try:
        return TrainingRecord.model_validate(read_json(path))
    except ValidationError as error:
        raise IncompatibleCheckpoint(f"{path}: {describe(error)}: not a training record of psserve") from None


def check_trained(new: NewModule, base: Base, training: TrainingRecord | None) -> bool:
    """Whether the module was trained on this base's KV cache; if not, `allow_naive` must have been given."""
    if training is None:
        why = f"no {TRAINING_RECORD} says that it was trained on the base's KV cache"
    elif training.base_fingerprint != base.fingerprint:
        theirs, ours = training.base_fingerprint[:12], base.fingerprint[:12]
        why = f"it was trained with another base (fingerprint {theirs}, base {base.name!r} has {ours})"
    elif training.method != "cache-conditioned":
        why = f"its training method is {training.method!r}, not 'cache-conditioned'"
    else:
        return True
    if not new.allow_naive:
        raise IncompatibleCheckpoint(f"{new.source}: {why}: answers may be poor; import it anyway with --allow-naive")
    return False


def same_as_base(base: Base, files: tuple[FileRecord, ...]) -> list[str]:
    """A warning if the module is the base under another name, which is likely a mistake."""
    same = {file.blake3 for file in files} <= {file.blake3 for file in base.files}
    return ["the weights are the base's own: was the right directory given?"] if same else []


def copy_weights(checkpoint: Checkpoint, destination: Path) -> tuple[FileRecord, ...]:
    """Copy the safetensors files and their index."""
    return tuple(
        FileRecord(
            name=file.name,
            blake3=copy_and_hash(file, destination / file.name),
            size=(destination / file.name).stat().st_size,
        )
        for file in checkpoint.weight_files
    )


def copy_and_hash(source: Path, destination: Path) -> str:
    """Copy a file, sync it to disk, and return the hash of the bytes that were written."""
    digest = new_hash()
    with source.open("rb") as reader, destination.open("xb") as writer:
        while chunk := reader.read(CHUNK):
            digest.update(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    return digest.hexdigest()


def restore_replaced(zoo: Path) -> None:
    """Put back the module that an import was replacing when it was killed between the two renames of `publish`."""
    manifest = zoo / REPLACED / MODULE_MANIFEST
    if manifest.exists():
        destination = zoo / "modules" / read_manifest(manifest, ModuleManifest).name
        if not destination.exists():
            manifest.parent.rename(destination)


def publish(staging: Path, destination: Path) -> None:
    """Move a complete module into place, in which there may be an older one, or the rest of a broken copy."""
    destination.parent.mkdir(exist_ok=True)
    old = staging.with_name(REPLACED)
    shutil.rmtree(old, ignore_errors=True)
    if destination.exists():
        destination.rename(old)
    staging.rename(destination)
    sync_directory(destination.parent)
    shutil.rmtree(old, ignore_errors=True)
