from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from psserve.router.workers.tasks import Deadline, Timeout, by


async def test_what_is_late_is_cancelled() -> None:
    with pytest.raises(Timeout) as late:
        await by(monotonic() + 0.01, asyncio.Event().wait())
    assert late.value.status == 504


async def test_what_is_in_time_gives_its_result() -> None:
    assert await by(monotonic() + 60, asyncio.sleep(0, result="done")) == "done"


async def test_a_timeout_of_the_inside_is_not_the_deadline() -> None:
    with pytest.raises(TimeoutError):
        async with Deadline(monotonic() + 60):
            raise TimeoutError


async def test_cancelling_from_outside_is_not_the_deadline() -> None:
    task = asyncio.create_task(by(monotonic() + 60, asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
