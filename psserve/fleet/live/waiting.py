"""Waiting for what the supervisor learns as it goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_TICK_S = 0.1


async def until(holds: Callable[[], bool], seconds: float) -> bool:
    """Wait. Returns whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_TICK_S)
    return True
