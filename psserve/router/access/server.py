"""aiohttp's server with bounds on connections and headers, and with errors in OpenAI's form.

aiohttp's own handling of a malformed request logs a traceback with the client's bytes in it, keys included.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

import orjson
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from psserve.contracts.limits import RequestLimits
from psserve.contracts.tls import ServerCertificate
from psserve.errors import RequestError, UsageError
from psserve.router.access.handshake import Handshakes

RequestHandling = Callable[[Any], Awaitable[web.StreamResponse]]
LOOK_S = 1.0
"""Between two looks at the certificate's files."""
LINGER_S = 1.0
"""How long a client that is one too many may take to read so."""
TOLD = 64
"""Connections that may be too many at a time and read so; more are closed at once."""
SERVER = "psserve"
"""What the header `Server` says: aiohttp would name its version, and Python's."""
log = logging.getLogger("psserve.router")


def make_runner(
    app: web.Application, limits: RequestLimits, drain_timeout_s: float, tls: ssl.SSLContext | None = None
) -> web.AppRunner:
    """A runner for `app`, whose sites know nothing of `tls`; requests are cancelled when their client leaves."""
    return _Runner(
        limits,
        tls,
        app,
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=drain_timeout_s,
        keepalive_timeout=limits.idle_secs,
        max_line_size=limits.header_bytes,
        max_field_size=limits.header_bytes,
        max_headers=limits.headers,
        auto_decompress=False,  # compressed bodies are refused; unpacking one first would be the bomb's way in
    )


class _Runner(web.AppRunner):
    """aiohttp has no parameter for the class of its server; this method is where a runner makes it."""

    __slots__ = ("_limits", "_tls")

    def __init__(self, limits: RequestLimits, tls: ssl.SSLContext | None, app: web.Application, **options: Any) -> None:
        super().__init__(app, **options)
        self._limits, self._tls = limits, tls

    async def _make_server(self) -> Server:
        return _Server(self._limits, self._tls, await super()._make_server())


class _Server(Server):
    """Makes a handler for each connection, and counts them."""

    def __init__(self, limits: RequestLimits, tls: ssl.SSLContext | None, like: Server) -> None:
        super().__init__(
            partial(_handle, like.request_handler),
            request_factory=like.request_factory,
            handler_cancellation=like.handler_cancellation,
            loop=like._loop,
            **like._kwargs,
        )
        self.limits = limits
        self._handshakes = None if tls is None else Handshakes(self, tls)
        self._held = 0

    def enter(self) -> int:
        self._held += 1
        return self._held

    def leave(self) -> None:
        self._held -= 1

    def turns_away(self, number: int) -> bool:
        return number > self.limits.connections + TOLD

    def handler(self, number: int | None = None) -> _Handler:
        return _Handler(self, number, loop=self._loop, **self._kwargs)

    def __call__(self) -> asyncio.Protocol:  # type: ignore[override]  # before a handshake there is no HTTP
        return self.handler() if self._handshakes is None else self._handshakes.newcomer()


class _Handler(RequestHandler):
    """One connection, after its handshake. `number`: as which it entered, if it has."""

    __slots__ = ("_number", "_server")

    def __init__(self, server: _Server, number: int | None, **options: Any) -> None:
        super().__init__(server, **options)
        self._server, self._number = server, number

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        server = self._server
        number = server.enter() if self._number is None else self._number
        if number <= server.limits.connections:
            super().connection_made(transport)
            return
        ours = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._force_close = True  # read nothing
        self._manager = None  # never was one of the server's
        if server.turns_away(number):
            ours.abort()
            return
        ours.write(_TOO_MANY)
        # Closed at once, with the client's request unread, Linux would reset it, and the answer be lost.
        self._loop.call_later(LINGER_S, ours.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.leave()
        super().connection_lost(exc)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send what is no stream (those have ended). A client that does not read it is cut off."""
        try:
            async with asyncio.timeout(self._server.limits.body_secs):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()
            return resp, True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no HTTP, or has too much header. aiohttp closes the connection after it."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun: cut it")
        error = _refusal(status, message or "")
        return _refuse(request, error, type(exc).__name__)


async def _handle(handler: RequestHandling, request: web.BaseRequest) -> web.StreamResponse:
    """aiohttp looks at `Expect` before any code of ours does, and has a page of its own for what it does not know."""
    try:
        return await handler(request)
    except web.HTTPExpectationFailed as failed:
        message = "the header Expect may say 100-continue alone"
        return _refuse(request, RequestError(417, message, code="expectation_failed"), type(failed).__name__)


def _refuse(request: web.BaseRequest, error: RequestError, kind: str) -> web.Response:
    """The answer to a request that goes no further; the connection is closed after it."""
    log.info("refused status=%d remote=%s error=%s", error.status, request.remote, kind)
    response = web.Response(
        body=orjson.dumps(error.body()),
        status=error.status,
        headers={"Server": SERVER},
        content_type="application/json",
    )
    response.force_close()
    return response


def _refusal(status: int, message: str) -> RequestError:
    if status >= 500:
        return RequestError(status, "internal error", type="server_error", code="internal_error")
    if message.startswith(("Got more than", "Too many headers")):  # aiohttp has no type of its own for these
        return RequestError(431, "the header is larger than this server allows", code="header_too_large")
    return RequestError(400, "the request is not HTTP as this server understands it", code="bad_request")


def _too_many() -> bytes:
    error = RequestError(
        503, "too many connections; retry in a moment", type="service_unavailable_error", code="server_is_overloaded"
    )
    body = orjson.dumps(error.body())
    head = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 2\r\nConnection: close"
    return f"{head}\r\nServer: {SERVER}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


_TOO_MANY = _too_many()


async def keep_renewed(certificate: ServerCertificate) -> None:
    """Look at its files once a second. Never ends by itself."""
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            if certificate.renew():
                log.info("a renewed certificate is in use")
        except (UsageError, OSError) as error:  # OSError: replaced once more, in this very moment
            log.error("renewed certificate not taken up, the one before stays in use: %s", error)
