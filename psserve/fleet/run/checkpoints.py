"""The checkpoint directories that a fleet's servers load, which stay what they are while the zoo changes.

`materialise` links to the zoo's files by name. A server that is restarted after its module was replaced would load the
new weights, or half of them; beside a second server of the same module that would be two models under one name. So
what lies in the zoo is linked by inode here. Weights that the zoo itself only links to stay where they are.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from psserve.zoo import Module, Zoo
from psserve.zoo.materialise import materialise


def make_checkpoint(zoo: Zoo, module: Module, destination: Path) -> None:
    """Make the directory anew. Raises as `materialise` does, or OSError."""
    if destination.exists():
        shutil.rmtree(destination)
    materialise(zoo, module, destination)
    for link in destination.iterdir():
        target = link.resolve()
        if zoo.path in target.parents:
            _pin(link, target)


def remove_checkpoints(run: Path) -> None:
    """Delete all of them: they hold on to files that the zoo may have dropped."""
    shutil.rmtree(run / "checkpoints", ignore_errors=True)


def _pin(link: Path, target: Path) -> None:
    """Put a hard link in the place of a symbolic one. A file system without hard links keeps the latter."""
    pinned = link.with_name(f".{link.name}.pinned")
    with suppress(OSError):
        os.link(target, pinned)
        pinned.replace(link)
