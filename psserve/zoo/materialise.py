"""A module as a checkpoint directory that SGLang and Transformers load: links, nothing is copied."""

from __future__ import annotations

from pathlib import Path

from psserve.errors import ZooError
from psserve.zoo import adapters
from psserve.zoo.disk.model import Module
from psserve.zoo.disk.progress import SILENT, Progress
from psserve.zoo.disk.transactions import REBUILT
from psserve.zoo.stores import checkpoint_files
from psserve.zoo.zoo import Zoo


def materialise(zoo: Zoo, module: Module, dest: Path, progress: Progress = SILENT) -> Path:
    """Make `dest` a directory of links to the module's weights and to the base's configuration, tokenizer and template.

    Where the module has a configuration of its own (`ModuleManifest.settings`), the link is to that one.

    Weights that are stored as a delta are rebuilt first, and kept in the zoo for the next time. Doing it again repairs
    what is missing and removes links that no longer belong. Raises ManifestError if a file of the module changed,
    ZooError if `dest` holds something that is not a link, or there is no room.
    """
    weights = checkpoint_files(zoo.base, module, zoo.path / REBUILT / module.name, progress)
    make_links(dest, zoo.base.auxiliary_files | module.settings_files | weights)
    return dest


def serving_form(zoo: Zoo, module: Module) -> Path:
    """The directory of an adapter in the form that servers load beside the base (see `Module.adapter` for its shape).

    It is in the zoo already unless somebody deleted it. Raises ManifestError if a file of the module changed,
    ValueError for a module that is no adapter.
    """
    return adapters.serving_form(zoo.path, zoo.base, module)


def make_links(dest: Path, wanted: dict[str, Path]) -> None:
    """Make the directory `dest` hold exactly these links: name -> target."""
    dest.mkdir(parents=True, exist_ok=True)
    for entry in dest.iterdir():
        if not entry.is_symlink():
            raise ZooError(f"{entry}: not a link made by psserve: move it away")
        if entry.name not in wanted or entry.readlink() != wanted[entry.name]:
            entry.unlink()
    for name, target in wanted.items():
        link = dest / name
        if not link.is_symlink():
            link.symlink_to(target)
