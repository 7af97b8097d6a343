"""The checkpoint directories that a fleet's servers load, which stay what they are while the zoo changes.

`materialise` links to the zoo's files by name. A server that is restarted after its module was replaced would load the
new weights, or half of them; beside a second server of the same module that would be two models under one name. So
what lies in the zoo is linked by inode here. Weights that the zoo itself only links to stay where they are.

`python -m psserve.fleet.run.checkpoints ZOO MODULE DIR` makes one in a process of its own; MODULE may be NAME@VERSION.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from psserve.contracts.programs import exit_status, program
from psserve.errors import ManifestError
from psserve.zoo import Module, Zoo
from psserve.zoo.disk.progress import SILENT, Progress
from psserve.zoo.materialise import materialise


def make_named(zoo: Zoo, name: str, destination: Path, progress: Progress = SILENT) -> Module:
    """Make the directory of the module `name`, or of a version of it (NAME@VERSION), as it is when that is done.

    Another command may replace the module meanwhile, which moves its files: then it is made again, so that it never has
    the files of one version and is called another. Returns what it has.

    Raises as `Zoo.module` and `make_checkpoint` do.
    """
    while True:
        module = zoo.module(name)
        try:
            make_checkpoint(zoo, module, destination, progress)
        except (ManifestError, OSError):
            if _place(zoo.module(name)) == _place(module):
                raise
        else:
            if _place(zoo.module(name)) == _place(module):
                return module


def _place(module: Module) -> tuple[object, ...]:
    return module.path, module.files, module.settings


def make_checkpoint(zoo: Zoo, module: Module, destination: Path, progress: Progress = SILENT) -> None:
    """Make the directory anew. Raises as `materialise` does, or OSError."""
    if destination.exists():
        shutil.rmtree(destination)
    materialise(zoo, module, destination, progress)
    for link in destination.iterdir():
        target = link.resolve()
        if zoo.path in target.parents:
            _pin(link, target)


def make_command(zoo: Path, module: str, destination: Path) -> tuple[str, ...]:
    """The command that does the same in another process; the last line of its stderr says what went wrong."""
    return program("psserve.fleet.run.checkpoints", str(zoo), module, str(destination))


def weights_of(module: Module) -> str:
    """A name for the module's weights, and what they are served with: a hash over the hashes of its files."""
    files = sorted((*module.files, *module.settings), key=lambda file: file.name)
    listing = "\n".join(f"{file.name} {file.blake3}" for file in files)
    return blake3(listing.encode()).hexdigest()


def remove_checkpoints(run: Path) -> None:
    """Delete all of them: they hold on to files that the zoo may have dropped."""
    shutil.rmtree(run / "checkpoints", ignore_errors=True)


def _pin(link: Path, target: Path) -> None:
    """Put a hard link in the place of a symbolic one. A file system without hard links keeps the latter."""
    pinned = link.with_name(f".{link.name}.pinned")
    with suppress(OSError):
        os.link(target, pinned)
        pinned.replace(link)


def main() -> None:
    """Make one checkpoint. Raises as `make_named` does, or ZooError."""
    zoo_dir, name, destination = sys.argv[1:]
    make_named(Zoo.open(Path(zoo_dir)), name, Path(destination))


if __name__ == "__main__":
    sys.exit(exit_status(main))
