"""The serving forms of a zoo's adapters: made when a module is added, and anew where they are missing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from psserve.errors import ManifestError
from psserve.zoo.disk.forms import ADAPTER_WEIGHTS, form_directory
from psserve.zoo.disk.manifest import AdapterShape
from psserve.zoo.disk.model import Base, Module, check_stored, first_changed
from psserve.zoo.disk.storage import lock, sync_directory, write_atomically

if TYPE_CHECKING:
    from psserve.zoo.checkpoints.checkpoint import Checkpoint
    from psserve.zoo.checkpoints.lora import Adapter


def serving_form(zoo: Path, base: Base, module: Module) -> Path:
    """The directory of the serving form of an adapter (PEFT's two files), made now if it is missing or cut short.

    Weights are read only then. Raises ManifestError if a file of the module is missing or changed, ValueError for a
    module that is no adapter.
    """
    if module.adapter is None:
        raise ValueError(f"module {module.name!r} is no adapter")
    directory = form_directory(zoo, module.name, module.files)
    if not is_complete(directory, module.adapter):
        check_stored(module)
        if changed := first_changed(module.on_disk):
            raise ManifestError(f"{changed}: its content is not what was recorded: add module {module.name!r} again")
        restore_form(base, module, directory)
    return directory


def is_complete(directory: Path, shape: AdapterShape) -> bool:
    """Whether a form of this shape is in `directory`: it was checked when it was put there, in one step."""
    weights = directory / ADAPTER_WEIGHTS
    return weights.is_file() and weights.stat().st_size == shape.bytes


def restore_form(base: Base, module: Module, directory: Path) -> None:
    """Make the form of a module again."""
    from psserve.zoo.checkpoints.checkpoint import read_checkpoint
    from psserve.zoo.checkpoints.lora import read_adapter

    checkpoint = read_checkpoint(base.path)
    if write_form(read_adapter(module.path, checkpoint), checkpoint, directory) != module.adapter:
        raise ManifestError(f"{module.path}: its adapter is not what was recorded: add module {module.name!r} again")


def write_form(adapter: Adapter, base: Checkpoint, directory: Path) -> AdapterShape:
    """Make the directory of an adapter's form in one step, after a check of what is in it, and say its shape.

    One that is there and right stays untouched: servers may be about to read it.
    """
    from psserve.zoo.checkpoints.serving_form import check_form, make_form

    building = directory.with_suffix(".building")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with lock(directory.parent / ".lock"):
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        try:
            form = make_form(adapter, base)
            files = form.files()
            for name, content in files.items():
                write_atomically(building / name, content)
            check_form(adapter, building)
            if not holds(directory, files):
                shutil.rmtree(directory, ignore_errors=True)
                building.rename(directory)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        sync_directory(directory.parent)
    size = (directory / ADAPTER_WEIGHTS).stat().st_size
    return AdapterShape(rank=form.rank, targets=form.targets, bytes=size)


def holds(directory: Path, files: Mapping[str, bytes]) -> bool:
    """Whether `directory` has these files, to the byte."""
    paths = {directory / name: content for name, content in files.items()}
    return all(path.is_file() and path.read_bytes() == content for path, content in paths.items())
