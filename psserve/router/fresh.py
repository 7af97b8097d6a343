"""Questions that are asked only when somebody wants to know, and not again while the last answer is fresh."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Fresh(Generic[Answer]):
    """The last answer of `ask`, at most `seconds` old. However many read at a time, it is asked once."""

    _answer: Answer

    def __init__(self, ask: Callable[[], Awaitable[Answer]], seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._asking = asyncio.Lock()
        self._asked = float("-inf")

    async def read(self) -> Answer:
        """What `ask` says, or said a moment ago."""
        async with self._asking:
            if monotonic() - self._asked >= self._seconds:
                self._answer = await self._ask()
                self._asked = monotonic()
            return self._answer
