"""The front of plain servers, before two that only say what they were sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from psserve.bench.systems.front import ModuleRoute, application


class Worker:
    """Notes the bodies it gets, and answers with `status` and two pieces; with status None not at all."""

    def __init__(self, status: int | None = 200) -> None:
        self.status = status
        self.bodies: list[dict[str, Any]] = []
        self.asked = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.asked.set()
        if self.status is None:
            await asyncio.sleep(60)
        response = web.StreamResponse(status=self.status or 504, headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/v1/completions", self.answer)
        async with TestServer(app) as server:
            yield str(server.make_url("")).rstrip("/")


@asynccontextmanager
async def front(prefill: Worker, decode: Worker) -> AsyncIterator[TestClient[Any, Any]]:
    """A client of the front: `math` is a pair, `code` is served by the second server alone."""
    async with prefill.served() as prefill_url, decode.served() as url:
        routes = {
            "math": ModuleRoute(url, None, prefill_url, "127.0.0.1", 4321),
            "code": ModuleRoute(url, model="base:code"),
        }
        async with TestClient(TestServer(application(routes))) as client:
            yield client


async def test_both_servers_of_a_pair_get_the_body_and_one_room() -> None:
    prefill, decode = Worker(), Worker()
    body = {"model": "math", "prompt": [1, 2], "max_tokens": 4, "stream": True}
    async with front(prefill, decode) as client:
        answer = await client.post("/v1/completions", json=body)
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        assert await answer.read() == b"data: 1\n\ndata: [DONE]\n\n"
        await prefill.asked.wait()  # the decode server's answer waits for no prefill server here
    (first,), (second,) = prefill.bodies, decode.bodies
    assert second == first | {"stream": True}
    assert (second["bootstrap_host"], second["bootstrap_port"]) == ("127.0.0.1", 4321)
    assert body.items() <= second.items()


async def test_a_module_of_one_server_goes_by_that_servers_name() -> None:
    prefill, decode = Worker(), Worker()
    async with front(prefill, decode) as client:
        await (await client.post("/v1/completions", json={"model": "code", "prompt": [1]})).read()
    assert (prefill.bodies, decode.bodies) == ([], [{"model": "base:code", "prompt": [1]}])


async def test_a_prefill_server_that_refuses_ends_the_request_at_once() -> None:
    async with front(Worker(status=500), Worker(status=None)) as client:
        answer = await client.post("/v1/completions", json={"model": "math", "prompt": [1]})
        assert answer.status == 502
        assert "prefill server: 500" in await answer.text()


async def test_an_unknown_module_is_told_the_known_ones() -> None:
    async with front(Worker(), Worker()) as client:
        answer = await client.post("/v1/completions", json={"model": "x", "prompt": [1]})
        assert (answer.status, await answer.text()) == (404, "no module 'x': there are math, code")
        listed = await (await client.get("/v1/models")).json()
        assert [model["id"] for model in listed["data"]] == ["math", "code"]
