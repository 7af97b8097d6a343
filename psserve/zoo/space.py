"""Whether a disk has room."""

from __future__ import annotations

import shutil
from pathlib import Path

from psserve.errors import ZooError


def check_space(directory: Path, needed: int) -> None:
    """Raise ZooError unless `needed` bytes are free on the disk of `directory`, which may have to be made first."""
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise ZooError(f"{directory}: {size(needed)} needed, {size(free)} free: make room on its disk")


def size(count: int) -> str:
    """Bytes, for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
