"""How a new module comes into the zoo: made beside its place, synced, and put there in one step.

.importing      the module that is being made; if no command holds the lock, what one left that was killed
.replaced       the module that gives way, on file systems that cannot exchange two directories in one step
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psserve.errors import ZooError
from psserve.zoo.manifest import MODULE_MANIFEST, ModuleManifest, read_manifest
from psserve.zoo.storage import sync_directory

STAGING = ".importing"
REPLACED = ".replaced"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
AT_FDCWD = -100
RENAME_EXCHANGE = 2
CANNOT_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


@contextmanager
def staging(zoo: Path) -> Iterator[Path]:
    """An empty directory to make a module in, which is gone afterwards. The caller holds the zoo's lock.

    ZooError if the disk takes no more.
    """
    directory = zoo / STAGING
    try:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        yield directory
    except OSError as error:
        if error.errno in NO_ROOM:
            raise ZooError(f"{zoo}: {error.strerror}: make room and try again; the zoo is as it was") from error
        raise
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def publish(staged: Path, destination: Path) -> None:
    """Move a complete module into place. An older one that is there, or the rest of one, is gone afterwards."""
    sync_directory(staged)
    destination.parent.mkdir(exist_ok=True)
    if not destination.exists():
        staged.rename(destination)
    elif not exchange(staged, destination):
        old = staged.with_name(REPLACED)
        shutil.rmtree(old, ignore_errors=True)
        destination.rename(old)
        staged.rename(destination)
        shutil.rmtree(old, ignore_errors=True)
    for directory in (destination.parent, staged.parent):
        sync_directory(directory)


def exchange(one: Path, other: Path) -> bool:
    """Swap two directories in one step, so that no reader ever misses either; False if the file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))


def clean_up_import(zoo: Path) -> None:
    """Undo what a killed import left. The caller holds the zoo's lock."""
    manifest = zoo / REPLACED / MODULE_MANIFEST
    if manifest.exists():  # killed between the two renames of `publish`, or after them
        destination = zoo / "modules" / read_manifest(manifest, ModuleManifest).name
        if not destination.exists():
            manifest.parent.rename(destination)
    for left in (STAGING, REPLACED):
        shutil.rmtree(zoo / left, ignore_errors=True)
