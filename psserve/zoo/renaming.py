"""A module's new name, given in one step.

A name is in two places, the directory's name and the manifest in it, which cannot change at once. So the new manifest
is put beside the old one first, then the directory is renamed, and then the new manifest takes the old one's place. The
second step is the change: readers take the manifest that has the directory's name (`psserve.zoo.scan.parse_module`).
Whatever stops a command between two steps, `finish_renaming` goes on from there.
"""

from __future__ import annotations

from pathlib import Path

from psserve.errors import ManifestError, ModuleExists
from psserve.zoo.manifest import MODULE_MANIFEST, ModuleManifest, read_manifest, write_manifest
from psserve.zoo.scan import RENAMED_MANIFEST
from psserve.zoo.storage import sync_directory


def rename_module(directory: Path, renamed: ModuleManifest) -> None:
    """Give the module in `directory` the manifest `renamed`, and the name in it, which is free. The zoo is locked."""
    destination = directory.with_name(renamed.name)
    if destination.exists():
        raise ModuleExists(f"{destination}: there, but no module of this zoo: move it away, or choose another name")
    write_manifest(directory / RENAMED_MANIFEST, renamed)
    directory.rename(destination)
    sync_directory(destination.parent)
    finish_renaming(destination)


def finish_renaming(directory: Path) -> None:
    """Put the new manifest in place if the directory has its new name; drop it if not. Usually there is none."""
    new = directory / RENAMED_MANIFEST
    if not new.exists():
        return
    if has_name(new, directory.name):
        new.replace(directory / MODULE_MANIFEST)
    else:
        new.unlink()
    sync_directory(directory)


def has_name(manifest: Path, name: str) -> bool:
    """Whether a manifest is sound and that of module `name`."""
    try:
        return read_manifest(manifest, ModuleManifest).name == name
    except ManifestError:
        return False
