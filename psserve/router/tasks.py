"""Running coroutines that stand or fall together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger("psserve.router")


async def together(*coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    """The results in order. The first failure cancels the others, waits for them, and is raised as itself."""
    if len(coroutines) == 1:
        return [await coroutines[0]]  # a task of its own would cost as much as admission
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


class Background:
    """Fire-and-forget coroutines, kept alive until they end or `close` ends them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Nobody awaits these tasks: a bug in one must reach the log all the same."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a background task failed by a bug", exc_info=error)

    async def close(self, grace_s: float) -> None:
        """Give what still runs `grace_s` seconds, then cancel it."""
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)  # their clean-up may still need our connections
