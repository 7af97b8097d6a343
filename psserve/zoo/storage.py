"""Files written so that a crash or a second writer can never leave half of one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from psserve.errors import ZooError

CHUNK = 4 << 20


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file beside `path`, sync it, and rename it into place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in `path` (a creation or a rename) survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> str:
    """blake2b-256 of a file's content, as hex."""
    digest = blake2b(digest_size=32)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def copy_and_hash(source: Path, destination: Path) -> str:
    """Copy a file, sync it to disk, and return the blake2b-256 of the bytes that were written."""
    digest = blake2b(digest_size=32)
    with source.open("rb") as reader, destination.open("xb") as writer:
        while chunk := reader.read(CHUNK):
            digest.update(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    return digest.hexdigest()


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (created if missing); ZooError if another process holds it.

    The kernel drops the lock when its holder dies, so that a killed command never leaves a zoo locked.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ZooError(
                f"{path.parent}: another command is changing this zoo: try again when it has ended"
            ) from None
        yield
