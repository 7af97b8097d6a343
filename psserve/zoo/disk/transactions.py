"""Changes of a zoo, each of which happens entirely or not at all, under the zoo's lock.

`changing` holds the lock, and first ends or undoes what a killed command had begun. Under it a module is made in
`staging` and put in place by `publish`, gives way to another version of it (`switch_version`), is renamed
(`rename_module`), or deleted (`remove_directory`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from psserve.errors import ManifestError, ModuleExists, ZooError
from psserve.zoo.disk.forms import prune_forms
from psserve.zoo.disk.manifest import MODULE_MANIFEST, ModuleManifest, SuccessionRecord, read_manifest, write_manifest
from psserve.zoo.disk.model import Module
from psserve.zoo.disk.scan import RENAMED_MANIFEST
from psserve.zoo.disk.storage import lock, sync_directory
from psserve.zoo.disk.versions import VERSIONS, carry_over, link_files, succession

LOCK = ".lock"
STAGING = ".importing"
"""Where, in the zoo, a module is made."""
REPLACED = ".replaced"
"""Where the older module waits, on file systems that cannot swap it with the new one in one step."""
REMOVED = ".removed"
"""Where, in the zoo, a module waits for its deletion. What a killed command left there goes with the next change."""
REBUILT = ".rebuilt"
"""Where, in the zoo, the complete files of modules with store "delta" are kept from one start to the next.

Of adapters, too, where one is served or read alone."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
AT_FDCWD = -100
RENAME_EXCHANGE = 2
CANNOT_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


@contextmanager
def changing(zoo: Path) -> Iterator[None]:
    """Hold the lock of the zoo at `zoo`, whose leftovers are cleaned up first. Raises ZooError if it is taken."""
    with lock(zoo / LOCK):
        recover(zoo)
        yield
        with suppress(ZooError, OSError):  # the change is made; the next one prunes what this one could not
            prune_rebuilt(zoo)
            prune_forms(zoo)


def recover(zoo: Path) -> None:
    """Finish or undo what a killed command left. The caller holds the lock, so that nobody is at it now."""
    clean_up_import(zoo)
    discard(zoo / REMOVED)
    prune_rebuilt(zoo)
    prune_forms(zoo)
    for pattern in ("", "modules/*/", f"modules/*/{VERSIONS}/*/"):
        for temporary in zoo.glob(f"{pattern}.*.tmp"):
            temporary.unlink()
    for directory in (zoo / "modules").glob("*/"):
        finish_renaming(directory)


def clean_up_import(zoo: Path) -> None:
    """Undo what a killed import left. The caller holds the zoo's lock."""
    manifest = zoo / REPLACED / MODULE_MANIFEST
    if manifest.exists():  # killed between the two renames of `publish`, or after them
        destination = zoo / "modules" / read_manifest(manifest, ModuleManifest).name
        if not destination.exists():
            manifest.parent.rename(destination)
    for left in (STAGING, REPLACED):
        shutil.rmtree(zoo / left, ignore_errors=True)


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


def switch_version(zoo: Path, module: Module, version: Module, keep_versions: int | None = None) -> None:
    """Put `version`, one of the kept ones of `module`, in its place, which is kept then. The zoo at `zoo` is locked.

    `keep_versions`: how many stay, with `version`; None: all.
    """
    others = sys.maxsize if keep_versions is None else keep_versions - 1
    now = SuccessionRecord(version=version.version, date=int(time.time()))
    manifest = version.manifest.model_copy(update={"succession": (*succession(module), now)})
    if version.version > module.version:
        manifest = manifest.model_copy(update={"previous": module.version})
    with staging(zoo) as directory:
        link_files(version.path, directory)
        carry_over(module.path, directory, manifest, keep=others, without={version.version})
        write_manifest(directory / MODULE_MANIFEST, manifest)
        publish(directory, module.path)


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


def remove_directory(zoo: Path, directory: Path) -> None:
    """Delete a module's or a version's directory of the zoo at `zoo`, which is locked and has nothing at `REMOVED`."""
    directory.rename(zoo / REMOVED)
    sync_directory(directory.parent)
    discard(zoo / REMOVED)


def discard(path: Path) -> None:
    """Delete a directory; of a link to one, the link. It may be gone already."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def prune_rebuilt(zoo: Path) -> None:
    """Delete what was rebuilt for modules that are no longer in the zoo at `zoo`, whose lock the caller holds."""
    for directory in (zoo / REBUILT).glob("*"):
        if not (zoo / "modules" / directory.name).exists():
            shutil.rmtree(directory)
