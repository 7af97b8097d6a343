"""Traces of requests: whether there are any is the configuration's to say, or OpenTelemetry's environment."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

from aiohttp import web

from psserve.contracts.router_config import RouterConfig
from psserve.router.observability.exchange import Exchange

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Tracing:
    """Makes traces of requests. This one: none."""

    def request(self, request: web.Request, exchange: Exchange) -> AbstractContextManager[object]:
        """A span around a POST, a child of what its headers name. `exchange` is read at the end."""
        return nullcontext()

    def close(self) -> None:
        """Send what has not been sent."""


def make_tracing(config: RouterConfig) -> Tracing:
    """What the file or OpenTelemetry's environment variables ask for. Raises StartError."""
    if config.otlp_traces_endpoint is None and not any(os.environ.get(name) for name in ENDPOINT_VARIABLES):
        return Tracing()
    # Only here: a router without tracing does not pay for the import.
    from psserve.router.observability.otel import otlp_tracing

    return otlp_tracing(config.otlp_traces_endpoint)
