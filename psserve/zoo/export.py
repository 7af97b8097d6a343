"""A module for other programs: as a plain Hugging Face checkpoint, with all that it takes from the base, or as the LoRA
adapter that it is.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psserve.errors import ManifestError, UsageError, ZooError
from psserve.zoo.adding.incoming import TRAINING_RECORD
from psserve.zoo.adding.storing import write
from psserve.zoo.disk.manifest import CHUNK, FileRecord
from psserve.zoo.disk.model import Module, check_files
from psserve.zoo.disk.progress import SILENT, Progress, with_progress
from psserve.zoo.disk.storage import check_space, real_path, sync_directory
from psserve.zoo.stores import checkpoint_files, complete_files
from psserve.zoo.zoo import Zoo

REBUILDING = ".rebuilding"


def export_module(zoo: Zoo, module: Module, destination: Path, progress: Progress = SILENT) -> Path:
    """Write `module` as a checkpoint that Transformers, SGLang and `add-model` load to the directory `destination`.

    The directory is there completely or not at all, and every byte is compared with the recorded hashes on the way.
    Returns its path. Raises UsageError (`destination` leads nowhere), ZooError (something is there, no room) or
    ManifestError (a file of the module or the base is missing or damaged).
    """
    destination = real_path(destination)
    check_destination(zoo, destination)
    check_files(zoo.base.path, zoo.base.files, f"base {zoo.base.name!r}")
    own = {file: path for path, file in module.settings_on_disk}
    shared = zoo.base.auxiliary_files.keys() - module.settings_files.keys()
    auxiliary = own | {file: zoo.base.path / file.name for file in zoo.base.files if file.name in shared}
    complete = complete_files(zoo.base, module)
    size = sum(file.size for file in (*complete, *auxiliary))
    check_space(destination.parent, size)
    with staging_for(destination) as staging:
        weights = checkpoint_files(zoo.base, module, staging / REBUILDING, progress)
        progress.stage(f"exporting {module.name}", size)
        collect(auxiliary | {file: weights[file.name] for file in complete}, staging, progress)
        shutil.rmtree(staging / REBUILDING, ignore_errors=True)
        finish(staging, module, destination)
    return destination


def export_adapter(zoo: Zoo, module: Module, destination: Path, progress: Progress = SILENT) -> Path:
    """Write the LoRA adapter that `module` is, as it came, to the directory `destination`.

    As for `export_module`, and PEFT loads it. Raises also UsageError: the module has no adapter.
    """
    if module.adapter is None:
        raise UsageError(
            f"module {module.name!r} is no adapter: its weights are whole (store {module.store!r}): leave --adapter out"
        )
    destination = real_path(destination)
    check_destination(zoo, destination)
    settings = [(path, file) for path, file in module.settings_on_disk if file.name != "config.json"]
    files = {file: path for path, file in (*module.on_disk, *settings)}
    size = sum(file.size for file in files)
    check_space(destination.parent, size)
    with staging_for(destination) as staging:
        progress.stage(f"exporting {module.name}", size)
        collect(files, staging, progress)
        finish(staging, module, destination)
    return destination


def collect(files: dict[FileRecord, Path], staging: Path, progress: Progress) -> None:
    """Bring the files to `staging`. Raises ManifestError for one that is not what was recorded."""
    for file, source in files.items():
        if source.is_relative_to(staging):
            source.rename(staging / file.name)  # just rebuilt there, and compared
        else:
            copy_verified(source, staging / file.name, file, progress)


def finish(staging: Path, module: Module, destination: Path) -> None:
    """Add the training record, and put all in place in one step."""
    if module.training:
        record = module.training.model_dump_json(indent=2, exclude_none=True).encode()
        write(staging / TRAINING_RECORD, [record])
    sync_directory(staging)
    staging.rename(destination)
    sync_directory(destination.parent)


def check_destination(zoo: Zoo, destination: Path) -> None:
    """Raise ZooError unless nothing, or an empty directory, is at `destination`, and that outside the zoo."""
    if destination.is_relative_to(zoo.path):
        raise ZooError(f"{destination}: inside the zoo: choose a directory elsewhere")
    if destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
        what = "not empty" if destination.is_dir() else "a file"
        raise ZooError(f"{destination}: {what}: choose a directory that is new or empty")


def copy_verified(source: Path, destination: Path, file: FileRecord, progress: Progress) -> None:
    """Copy a file, synced to disk; ManifestError if its content is not what was recorded."""
    if write(destination, with_progress(blocks(source), progress)).blake3 != file.blake3:
        raise ManifestError(f"{source}: changed since it was recorded: restore it (psserve verify checks all files)")


def blocks(path: Path) -> Iterator[bytes]:
    """A file's content, `CHUNK` bytes at a time."""
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            yield block


@contextmanager
def staging_for(destination: Path) -> Iterator[Path]:
    """An empty directory beside `destination`, gone afterwards unless it was renamed. ZooError if another has it.

    It is locked, so that what a killed export left is told from what a running one makes.
    """
    staging = destination.with_name(f".{destination.name}.exporting")
    staging.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ZooError(f"{destination}: another command is exporting to it: choose another directory") from None
        try:
            empty_folder(staging)
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    finally:
        os.close(descriptor)


def empty_folder(directory: Path) -> None:
    """Delete what is in `directory`."""
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
