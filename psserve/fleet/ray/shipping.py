"""Sending a checkpoint to a machine, through its agent: only the files that it has not got."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any

from psserve.fleet.ray.store import Entry, listed

PIECE_BYTES = 8 * 1024 * 1024
Call = Callable[..., Awaitable[Any]]
"""Calls a method of the agent, by name."""
Stamp = tuple[str, int, int, int, int]


class Damaged(Exception):
    """A file did not arrive as it was sent."""


@cache
def _entries(folder: Path, stamp: tuple[Stamp, ...]) -> tuple[Entry, ...]:
    """The files of a checkpoint, which is read once as long as it has the same `stamp`."""
    return listed(folder)


def _stamp(folder: Path) -> tuple[Stamp, ...]:
    """Other than before if the folder's files are: a module that is removed and added again has the same path."""
    found = sorted((path.name, path.stat()) for path in folder.iterdir())
    return tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in found)


async def ship(folder: Path, call: Call) -> Path:
    """Send a folder. Returns where it is on the machine. Raises OSError, Damaged, or what `call` does.

    Not to be called for two folders at a time: they may have files in common.
    """
    entries = await asyncio.to_thread(_entries, folder, await asyncio.to_thread(_stamp, folder))
    for digest in await call("missing", [entry.digest for entry in entries]):
        name = next(entry.name for entry in entries if entry.digest == digest)
        await _send(folder / name, digest, call)
    return Path(await call("folder", [entry.model_dump() for entry in entries]))


async def _send(path: Path, digest: str, call: Call) -> None:
    with path.open("rb") as file:
        offset = 0
        while True:
            piece = await asyncio.to_thread(file.read, PIECE_BYTES)
            if offset and not piece:
                break
            await call("receive", digest, offset, piece)
            offset += len(piece)
            if not piece:
                break
    while (kept := await call("keep", digest)) is None:  # the agent has others to answer meanwhile
        pass
    if not kept:
        raise Damaged(f"{path} changed, or was damaged, on its way")
