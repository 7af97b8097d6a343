"""Files, directories and locks: written so that a crash or a second writer can never leave half of one.

Also reads JSON of unknown origin, and sees whether a disk has room.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from psserve.errors import IncompatibleCheckpoint, UsageError, ZooBusy, ZooError

LOCK_WAIT_S = 10.0
LOCK_POLL_S = 0.05
MAX_JSON_BYTES = 64 << 20


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a checkpoint, {} if there is no such file."""
    if not path.exists():
        return {}
    if path.stat().st_size > MAX_JSON_BYTES:
        raise IncompatibleCheckpoint(f"{path}: larger than {MAX_JSON_BYTES >> 20} MiB: not what it should be")
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise IncompatibleCheckpoint(f"{path}: not JSON ({error}): copy it again") from None
    if not isinstance(document, dict):
        raise IncompatibleCheckpoint(f"{path}: expected a JSON object")
    return document


def real_path(given: str | Path) -> Path:
    """The absolute path that a user means, ~ and links resolved. UsageError: no such user, or links in a circle."""
    try:
        return Path(given).expanduser().resolve()
    except RuntimeError as error:
        raise UsageError(f"{given}: leads nowhere ({str(error).rstrip('.')}): give another path") from None


def write_atomically(path: Path, data: bytes, mode: int = 0o666, *, durable: bool = True) -> None:
    """Write `data` to a temporary file beside `path`, sync it, and rename it into place. `mode`: as for os.open.

    Not `durable`: without syncing, for what is written often and means nothing after a power cut. Raises OSError; the
    old file is untouched then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in `path` (a creation or a rename) survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_space(directory: Path, needed: int) -> None:
    """Raise ZooError unless `needed` bytes are free on the disk of `directory`, which may have to be made first."""
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise ZooError(f"{directory}: {_size(needed)} needed, {_size(free)} free: make room on its disk")


def _size(count: int) -> str:
    """Bytes, for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (created if missing), after waiting for others, `LOCK_WAIT_S` at most.

    ZooBusy says who holds it for longer, ZooError that `path` cannot be written. The kernel drops the lock when its
    holder dies, so that a killed command never leaves a zoo locked.
    """
    with open_locked(path) as file:
        file.truncate(0)
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])  # no further: keys may follow
        holder = f"{command[:200]} (process {os.getpid()})"
        with suppress(OSError):  # only people read it, and on a full disk a removal must be able to make room
            os.write(file.fileno(), holder.encode(errors="replace"))  # unbuffered: closing tries nothing again
        try:
            yield
        finally:
            file.truncate(0)


def open_locked(path: Path) -> TextIO:
    """The file at `path`, open and locked. Raises as `lock`."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            file = path.open("a+")
        except OSError as error:
            raise ZooError(f"{path.parent}: cannot be changed: {path.name}: {error.strerror}") from None
        if is_locked(file, path):
            return file
        file.seek(0)
        holder = file.read() or "another command"
        file.close()
        if time.monotonic() > deadline:
            raise ZooBusy(f"{path.parent}: {holder} is changing this zoo: try again when it has ended")
        time.sleep(LOCK_POLL_S)


def is_locked(file: TextIO, path: Path) -> bool:
    """Lock `file`, if nobody else has, and if it is still what is at `path`: the zoo may have been moved or removed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
