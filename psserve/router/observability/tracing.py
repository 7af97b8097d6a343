"""Traces of requests, for those who need not know whether there are any. Imports no OpenTelemetry: see otel.py."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from aiohttp import web

from psserve.router.observability.exchange import Exchange


class Tracing:
    """Makes traces of requests. This one: none."""

    def request(self, request: web.Request, exchange: Exchange) -> AbstractContextManager[object]:
        """A span around a POST, a child of what its headers name. `exchange` is read at the end."""
        return nullcontext()

    def close(self) -> None:
        """Send what has not been sent."""
