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


class Damaged(Exception):
    """A file did not arrive as it was sent."""


@cache
def _entries(folder: Path) -> tuple[Entry, ...]:
    """A checkpoint is never written to once it is there: it is read once."""
    return listed(folder)


async def ship(folder: Path, call: Call) -> Path:
    """Send a folder. Returns where it is on the machine. Raises OSError, Damaged, or what `call` does."""
    entries = await asyncio.to_thread(_entries, folder)
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
    if not await call("keep", digest):
        raise Damaged(f"{path} changed, or was damaged, on its way")
