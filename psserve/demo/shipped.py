"""The demo zoo as it comes with psserve: in a wheel beside this file, in the source tree where it is committed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from psserve.errors import ZooError
from psserve.zoo import Zoo
from psserve.zoo.disk.manifest import ZOO_MANIFEST
from psserve.zoo.disk.storage import lock
from psserve.zoo.disk.transactions import LOCK

MODULES = ("code", "math", "tools")
_BUILDING = ".building"
"""In the zoo, as long as it is copied."""
_PARTS = ("base", "modules", ZOO_MANIFEST)  # with its manifest it is a zoo
_PLACES = (Path(__file__).with_name("zoo"), Path(__file__).parents[2] / "model_zoo")


def shipped_zoo() -> Path:
    """Find the demo zoo that came with psserve. It may be another user's: copy it, and serve the copy.

    Raises:
        ZooError: this psserve came without it.
    """
    for place in _PLACES:
        if (place / ZOO_MANIFEST).is_file():
            return place
    raise ZooError(f"this psserve came without its demo zoo ({_PLACES[0]}): install its wheel again")


def write_demo_zoo(path: Path) -> bool:
    """Copy the demo zoo to `path`, at once for every reader, unless it is there. Returns whether it was copied.

    An empty folder at `path` stays that folder: it may be a volume, beside which its user may write nothing.

    Raises:
        ZooError: there is something else at `path`, nothing can be written there, or another command does for long.
    """
    source = shipped_zoo()
    before = {each.name for each in path.iterdir()} if path.is_dir() else set()  # first: another copy may end now
    if _is_there(source, path):
        return False
    left = {LOCK, _BUILDING, *_PARTS} if _BUILDING in before else {LOCK}  # by a copy that goes on or was interrupted
    if not before <= left:
        raise ZooError(f"{path}: not empty, and no zoo: give the demo a place with --zoo DIR")
    try:
        (path / _BUILDING).mkdir(parents=True, exist_ok=True)
        with lock(path / LOCK):
            shutil.rmtree(path / _BUILDING, ignore_errors=True)
            if _is_there(source, path):
                return False
            _write(source, path)
    except OSError as error:
        raise ZooError(
            f"{path}: user {os.getuid()} cannot write there ({error.strerror}): give the demo a place with --zoo DIR"
        ) from error
    return True


def _is_there(source: Path, path: Path) -> bool:
    """Whether the demo zoo is at `path`. Raises ZooError: another one is."""
    if not (path / ZOO_MANIFEST).is_file():
        return False
    found, wanted = Zoo.read(path).base, Zoo.read(source).base
    if found.fingerprint != wanted.fingerprint:
        raise ZooError(f"{path}: a zoo of {found.name}, not the demo zoo: give the demo a place with --zoo DIR")
    return True


def _write(source: Path, path: Path) -> None:
    building = path / _BUILDING
    building.mkdir(exist_ok=True)  # another one may just have made it, and waits
    for name in (ZOO_MANIFEST, "base", *(f"modules/{module}" for module in MODULES)):
        _copy(source / name, building / name)
    for name in _PARTS:
        shutil.rmtree(path / name, ignore_errors=True)
        (building / name).rename(path / name)
    building.rmdir()


def _copy(source: Path, destination: Path) -> None:
    """Copy bytes alone: what is installed may be read-only."""
    if source.is_dir():
        for each in source.iterdir():
            _copy(each, destination / each.name)
        return
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, destination)
