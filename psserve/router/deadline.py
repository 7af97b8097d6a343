"""What has to be done by a certain time, or is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from time import monotonic
from types import TracebackType
from typing import Any, TypeVar

from psserve.errors import RequestError

Result = TypeVar("Result")


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


async def by(when: float, coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The result of `coroutine`, which is cancelled at `when` (monotonic seconds). Raises Timeout."""
    async with Deadline(when):
        return await coroutine
