"""The front of plain SGLang servers: one URL for all modules, as little work for each request as can be.

    python -m psserve.bench.systems.front ROUTES.json PORT

psserve's own router cannot stand here: with plain SGLang the prefill server samples the first token, so it must get the
whole body. This front does what SGLang's own mini load balancer does (both servers get the client's body and a room to
meet in, the decode server's answer goes back untouched), with one pooled HTTP client, and checks, counts and queues
nothing: whatever it costs is less than psserve's router costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web

_LARGEST_BODY = 256 * 1024**2
_KEEP_ALIVE_S = 3.0  # SGLang closes idle connections after 5 s; ours must be gone first
_LARGEST_ROOM = 2**62
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class ModuleRoute:
    """Where the requests of one module go."""

    url: str
    """The server that answers: a decode server, or an ordinary one."""
    model: str | None = None
    """What that server is to read as `model`; None: the module's name."""
    prefill_url: str | None = None
    """The prefill server it is paired with; None: it needs none."""
    bootstrap_host: str | None = None
    bootstrap_port: int | None = None
    """Where the decode server finds that prefill server."""


class Front:
    """Relays requests; `connected` surrounds its life."""

    def __init__(self, routes: Mapping[str, ModuleRoute]) -> None:
        self._routes = routes
        self._client: aiohttp.ClientSession

    async def connected(self, app: web.Application) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as self._client:
            yield

    async def models(self, request: web.Request) -> web.Response:
        listed = [{"id": name, "object": "model", "owned_by": "bench"} for name in self._routes]
        return web.json_response({"object": "list", "data": listed})

    async def relay(self, request: web.Request) -> web.StreamResponse:
        """One request: to its server or its pair of servers, and the answer back as it comes."""
        body: dict[str, Any] = orjson.loads(await request.read())
        route = self._routes.get(body.get("model", ""))
        if route is None:
            raise web.HTTPNotFound(text=f"no module {body.get('model')!r}: there are {', '.join(self._routes)}")
        body["model"] = route.model or body["model"]
        if route.prefill_url is None:
            return await self._answer(request, route, body)
        try:
            async with self._paired(route, request.path, body):
                return await self._answer(request, route, body)
        except ExceptionGroup as failed:
            raise web.HTTPBadGateway(text=f"prefill server: {failed.exceptions[0]}") from failed

    async def _answer(self, request: web.Request, route: ModuleRoute, body: dict[str, Any]) -> web.StreamResponse:
        async with self._client.post(route.url + request.path, data=orjson.dumps(body), headers=_JSON) as answer:
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    @contextlib.asynccontextmanager
    async def _paired(self, route: ModuleRoute, path: str, body: dict[str, Any]) -> AsyncIterator[None]:
        """Pairs `body` with a prefill server, which works on it meanwhile. If that fails, so does the request, at once:
        the decode server would wait for KV that never comes."""
        body["bootstrap_host"], body["bootstrap_port"] = route.bootstrap_host, route.bootstrap_port
        body["bootstrap_room"] = secrets.randbelow(_LARGEST_ROOM)
        quiet = {name: value for name, value in body.items() if name not in ("stream", "stream_options")}
        async with asyncio.TaskGroup() as legs:
            legs.create_task(self._prefill(f"{route.prefill_url}{path}", orjson.dumps(quiet)))
            yield

    async def _prefill(self, url: str, body: bytes) -> None:
        async with self._client.post(url, data=body, headers=_JSON, raise_for_status=True) as answer:
            await answer.read()


def application(routes: Mapping[str, ModuleRoute]) -> web.Application:
    """The front as an aiohttp application."""
    app, front = web.Application(client_max_size=_LARGEST_BODY), Front(routes)
    app.cleanup_ctx.append(front.connected)
    app.router.add_get("/health", _health)
    app.router.add_get("/v1/models", front.models)
    app.router.add_post("/v1/completions", front.relay)
    app.router.add_post("/v1/chat/completions", front.relay)
    return app


async def _health(request: web.Request) -> web.Response:
    return web.Response()


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM. `arguments`: a file of module -> Route as JSON, and the port on the loopback interface."""
    import uvloop

    routes = {name: ModuleRoute(**route) for name, route in json.loads(Path(arguments[0]).read_text()).items()}
    uvloop.install()
    web.run_app(application(routes), host="127.0.0.1", port=int(arguments[1]), print=None, access_log=None)


if __name__ == "__main__":
    main(sys.argv[1:])
