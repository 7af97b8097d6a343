"""Coroutines: ended by a deadline, several at once, in the background, and one whose answer serves many."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from types import TracebackType
from typing import Any, Generic, TypeVar

from psserve.errors import RequestError

ResultT = TypeVar("ResultT")
log = logging.getLogger("psserve.router")


class Timeout(RequestError):
    """The request's deadline passed, or the time by which its answer had to begin."""

    def __init__(self) -> None:
        message = "the request took longer than this server allows, to begin its answer or as a whole"
        super().__init__(504, message, type="server_error", code="timeout")


class Deadline:
    """`async with` it: what is inside is cancelled at `when` (monotonic seconds), and Timeout raised.

    A class, for each sequence has several, and a generator with `asynccontextmanager` costs twice as much.
    """

    def __init__(self, when: float) -> None:
        self._scope = asyncio.timeout(when - monotonic())

    async def __aenter__(self) -> None:
        await self._scope.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._scope.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise Timeout from None


async def by(when: float, coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
    """The result of `coroutine`, which is cancelled at `when` (monotonic seconds). Raises Timeout."""
    async with Deadline(when):
        return await coroutine


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


class Fresh(Generic[ResultT]):
    """The last answer of `ask`, at most `seconds` old. However many read it at a time, `ask` is called once."""

    _answer: ResultT

    def __init__(self, ask: Callable[[], Awaitable[ResultT]], seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._asking = asyncio.Lock()
        self._asked = float("-inf")

    async def read(self) -> ResultT:
        """What `ask` says, or said a moment ago."""
        async with self._asking:
            if monotonic() - self._asked >= self._seconds:
                self._answer = await self._ask()
                self._asked = monotonic()
            return self._answer
