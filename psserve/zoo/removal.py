"""The deletion of a module: out of the listing in one step, then off the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from psserve.zoo.storage import sync_directory

REMOVED = ".removed"
"""Where, in the zoo, a module waits for its deletion. What a killed command left there goes with the next change."""


def remove_module(zoo: Path, name: str) -> None:
    """Delete `modules/NAME` of the zoo at `zoo`, which is locked and has nothing at `REMOVED`."""
    directory = zoo / "modules" / name
    directory.rename(zoo / REMOVED)
    sync_directory(directory.parent)
    discard(zoo / REMOVED)


def discard(path: Path) -> None:
    """Delete a directory; of a link to one, the link. It may be gone already."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
