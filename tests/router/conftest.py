"""A router in front of fake workers, all real servers on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from psserve.contracts.router_config import RouterConfig
from psserve.router.access.server import make_runner
from psserve.router.app import make_app
from psserve.router.state import STATE, RouterState
from psserve.router.workers import upstream
from tests.router.fake_worker import Fabric, FakeWorker
from tests.waiting import PATIENCE_S


@pytest.fixture(autouse=True)
def _patient_aborts(monkeypatch: pytest.MonkeyPatch) -> None:
    """An abort that is not taken in time is given up, which on a busy machine says nothing of the router."""
    monkeypatch.setattr(upstream, "ABORT_TIMEOUT_S", PATIENCE_S)


async def eventually(condition: Callable[[], Any]) -> None:
    """Wait until `condition` holds (it may be async)."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            result = condition()
            if isinstance(result, Awaitable):
                result = await result
            if result:
                return
            await asyncio.sleep(0.01)


@dataclass
class Fleet:
    """One prefill and two decode workers (math, with alias maths; code) behind a router."""

    prefill: FakeWorker
    math: FakeWorker
    code: FakeWorker
    url: str
    http: aiohttp.ClientSession
    state: RouterState

    @property
    def workers(self) -> list[FakeWorker]:
        return [self.prefill, self.math, self.code]

    async def post(self, path: str, body: Any, **options: Any) -> tuple[int, dict[str, Any], Any]:
        """Status, JSON body and headers of a POST."""
        if "data" not in options:
            options["json"] = body
        async with self.http.post(self.url + path, **options) as response:
            return response.status, await response.json(), response.headers

    async def complete(self, model: str = "math", prompt: Any = "some prompt", **fields: Any) -> Any:
        body = {"model": model, "prompt": prompt, "max_tokens": 3} | fields
        return await self.post("/v1/completions", body)

    async def chat(self, model: str = "math", content: Any = "hello", **fields: Any) -> Any:
        body = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 3} | fields
        return await self.post("/v1/chat/completions", body)

    async def stream(self, path: str = "/v1/completions", **fields: Any) -> tuple[int, bytes]:
        """Status and raw bytes of a streamed answer."""
        body = {"model": "math", "prompt": "some prompt", "max_tokens": 3, "stream": True} | fields
        async with self.http.post(self.url + path, json=body) as response:
            return response.status, await response.read()

    async def get(self, path: str, **options: Any) -> tuple[int, Any]:
        async with self.http.get(self.url + path, **options) as response:
            if response.content_type != "application/json":
                return response.status, await response.text()
            return response.status, await response.json()

    async def ready(self) -> None:
        await eventually(lambda: all(worker.is_ready for worker in self.state.table.workers))

    async def idle(self) -> None:
        """Nothing runs any more, here and there."""
        await eventually(lambda: not any(worker.running for worker in (*self.workers, *self.state.table.workers)))


def make_workers() -> tuple[FakeWorker, FakeWorker, FakeWorker]:
    """One prefill worker and one decode worker each of math and code, not started yet."""
    fabric = Fabric()
    return (
        FakeWorker("prefill-0", "prefill", fabric),
        FakeWorker("decode-math-0", "decode", fabric, module="math"),
        FakeWorker("decode-code-0", "decode", fabric, module="code"),
    )


def make_config(prefill: FakeWorker, math: FakeWorker, code: FakeWorker, **fields: Any) -> RouterConfig:
    workers = [
        {
            "name": worker.name,
            "role": worker.role,
            "module": worker.module,
            "port": worker.port,
            "bootstrap_port": worker.bootstrap_port if worker.role == "prefill" else None,
        }
        for worker in (prefill, math, code)
    ]
    document = {
        "port": 0,
        "worker_key": "worker-secret",
        "base": {"name": "base", "path": "/zoo/base", "vocab_size": 512, "context_length": 4096},
        "modules": [
            {"name": "math", "aliases": ["maths"], "task": "sums", "created": 1764000000, "path": "/zoo/math"},
            {"name": "code", "path": "/zoo/code"},
        ],
        "workers": workers,
        "kv_pool_tokens": 2048,
    }
    return RouterConfig.model_validate(document | fields)


@pytest.fixture
async def make_fleet() -> AsyncIterator[Callable[..., Awaitable[Fleet]]]:
    """Starts fleets; keyword arguments are fields of RouterConfig. `start=False` leaves the workers off."""
    cleanups: list[Callable[[], Awaitable[None]]] = []

    async def make(*, start: bool = True, **fields: Any) -> Fleet:
        workers = make_workers()
        for worker in workers:
            await worker.start()  # also picks the port
            if not start:
                await worker.stop()
        config = make_config(*workers, **fields)
        app = make_app(config)
        runner = make_runner(app, config.limits, 0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        http = aiohttp.ClientSession()
        cleanups.extend([http.close, runner.cleanup, *(worker.stop for worker in workers)])
        fleet = Fleet(*workers, f"http://127.0.0.1:{runner.addresses[0][1]}", http, app[STATE])
        if start:
            await fleet.ready()
        return fleet

    yield make
    for cleanup in cleanups:
        await cleanup()


@pytest.fixture
async def fleet(make_fleet: Callable[..., Awaitable[Fleet]]) -> Fleet:
    """A fleet that is ready."""
    return await make_fleet()
