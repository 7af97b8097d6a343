"""Feeling the pulse of a machine while bodies are under way to it."""

from __future__ import annotations

import asyncio

import pytest

from psserve.router.workers import silence
from psserve.router.workers.silence import Pulses
from psserve.router.workers.workers import WorkerTable
from tests.router.conftest import make_config, make_workers


async def test_a_body_that_comes_as_the_last_one_ends_has_a_pulse_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def is_silent_at_once(host: str, port: int) -> None:
        pass

    monkeypatch.setattr(silence, "PULSE_S", 0.0)
    monkeypatch.setattr(silence, "until_silent", is_silent_at_once)
    workers = make_workers()
    for port, fake in enumerate(workers, start=1):
        fake.port = fake.bootstrap_port = port
    pulses, worker = Pulses(), WorkerTable(make_config(*workers)).prefills[0]
    async with pulses.felt(worker):
        pass
    with pytest.raises(TimeoutError):
        async with pulses.felt(worker):
            await asyncio.sleep(5)
