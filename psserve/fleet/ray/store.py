"""Files that were sent to a machine: kept by what is in them, so that nothing is sent twice, and checked.

files/<digest>            a file, as it was sent
arriving/<digest>-<pid>   the beginning of one, and the agent that takes it
folders/<digest>          a checkpoint: hard links to its files
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3
from pydantic import BaseModel, ConfigDict

LOOK_BYTES = 64 * 1024 * 1024
"""Of a file that has arrived, in one call."""
ABANDONED_S = 3600.0
"""Nobody goes on with a file of which nothing has come for so long: a piece takes less (SHIP_S)."""


class Entry(BaseModel):
    """One file of a folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    size: int
    digest: str


def listed(folder: Path) -> tuple[Entry, ...]:
    """The files of a folder, which has no others below. Reads all of them. Raises OSError."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return tuple(Entry(name=path.name, size=path.stat().st_size, digest=digest_of(path)) for path in files)


def digest_of(path: Path) -> str:
    """What is in a file, in short. Raises OSError."""
    return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()


@dataclass
class _Look:
    """How far a file that has arrived was looked through."""

    hash: blake3 = field(default_factory=lambda: blake3(max_threads=blake3.AUTO))
    bytes: int = 0


class Store:
    """The files of one machine. Several fleets may use it at a time: what is there is never changed."""

    def __init__(self, root: Path) -> None:
        self._looks: dict[str, _Look] = {}
        """By digest."""
        self._files, self._arriving, self._folders = (root / name for name in ("files", "arriving", "folders"))
        for folder in (self._files, self._arriving, self._folders):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Those of these files that must be sent. What others have left half sent is removed."""
        self._remove_abandoned()
        return [digest for digest in dict.fromkeys(digests) if not (self._files / digest).exists()]

    def _remove_abandoned(self) -> None:
        """By age: a process id says little of an agent in a container, or where machines share a home directory."""
        for file in self._arriving.iterdir():
            with suppress(FileNotFoundError):  # another agent was faster
                if time.time() - file.stat().st_mtime > ABANDONED_S:
                    file.unlink()

    def receive(self, digest: str, offset: int, data: bytes) -> None:
        """Take a piece of a file. Raises OSError, as when the disk is full."""
        self._looks.pop(digest, None)  # it is sent anew
        with open(self._arriving / f"{digest}-{os.getpid()}", "r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(data)

    def keep(self, digest: str) -> bool | None:
        """Keep a file whose last piece has come. Returns whether it is what it should be; else it is gone.

        None: so far it is, and this must be called again. A call looks at no more than takes a moment. Raises OSError.
        """
        arrived = self._arriving / f"{digest}-{os.getpid()}"
        look = self._looks.setdefault(digest, _Look())
        with arrived.open("rb") as file:
            file.seek(look.bytes)
            part = file.read(LOOK_BYTES)
        look.hash.update(part)
        look.bytes += len(part)
        if part:
            return None
        del self._looks[digest]
        if look.hash.hexdigest() != digest:
            arrived.unlink()
            return False
        arrived.replace(self._files / digest)
        return True

    def folder(self, entries: Sequence[Entry]) -> Path:
        """The folder of these files, all of which are there. Raises OSError."""
        digest = blake3("".join(f"{entry.name}\0{entry.digest}\0" for entry in entries).encode()).hexdigest()
        folder = self._folders / digest
        if not folder.exists():
            new = self._folders / f"{digest}-{os.getpid()}"
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(mode=0o700)
            for entry in entries:
                os.link(self._files / entry.digest, new / entry.name)
            with suppress(OSError):  # another agent of this machine was faster
                new.rename(folder)
        return folder
