"""Reading a request's body: of the one type there is, within its size and time."""

from __future__ import annotations

import asyncio
import re

from aiohttp import web

from psserve.contracts.limits import RequestLimits
from psserve.errors import RequestError

_TEXT = re.compile(rb'"[^"]*"')


def check_shape(raw: bytes, limits: RequestLimits) -> None:
    """Raises RequestError (400) when the JSON text `raw` has too many lists and objects, or values in them.

    Of a text that is no JSON the counts mean nothing; the parser refuses it then.
    """
    if _within(raw, limits):  # nearly every body; what stands in its strings counts too
        return
    if not _within(_without_strings(raw), limits):
        raise RequestError(
            400,
            f"the body has more than {limits.containers} lists and objects, or {limits.elements} values in them",
            code="invalid_json",
        )


def _within(text: bytes, limits: RequestLimits) -> bool:
    return text.count(b"[") + text.count(b"{") <= limits.containers and text.count(b",") < limits.elements


def _without_strings(raw: bytes) -> bytes:
    """In three passes, each linear: with escapes gone, every quotation mark begins or ends a string."""
    return _TEXT.sub(b"", raw.replace(b"\\\\", b"").replace(b'\\"', b""))


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
