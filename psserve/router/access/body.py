"""JSON bodies on the wire: reading a request's, within its size and time, and writing an answer's."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from aiohttp import web

from psserve.contracts.limits import RequestLimits
from psserve.errors import RequestError


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


def json_response(document: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")
