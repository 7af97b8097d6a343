"""Reading a request's body: of the one type there is, within its size and time."""

from __future__ import annotations

import asyncio

from aiohttp import web

from psserve.errors import RequestError
from psserve.request_limits import RequestLimits


async def read_body(request: web.Request, limits: RequestLimits) -> bytes:
    """The whole body. Raises RequestError (400, 408, 415), or aiohttp's 413 (the application's client_max_size)."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise RequestError(415, "compressed bodies are not supported", code="unsupported_encoding")
    if request.content_type != "application/json" or "Content-Type" not in request.headers:
        raise RequestError(415, "Content-Type must be application/json", code="unsupported_media_type")
    try:
        async with asyncio.timeout(limits.body_secs):
            return await request.read()
    except TimeoutError:
        raise RequestError(408, "the body did not arrive in time", code="request_timeout") from None
    except web.RequestPayloadError:
        raise RequestError(400, "the body is not what its header says", code="bad_request") from None
