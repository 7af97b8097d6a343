"""Traces of requests, for those who need not know whether there are any. Imports no OpenTelemetry: see otel.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol

from aiohttp import web

from psserve.contracts.router_config import WorkerRole
from psserve.router.observability.exchange import UNTRACED, Exchange, LegSpan


class Tracing:
    """Makes traces of requests. This one: none."""

    def request(self, request: web.Request, exchange: Exchange) -> AbstractContextManager[object]:
        """A span around a POST, a child of what its headers name. `exchange` is read at the end."""
        return nullcontext()

    def close(self) -> None:
        """Send what has not been sent."""


class RequestTrace(Protocol):
    """The trace of one request."""

    def leg(self, role: WorkerRole, worker: str) -> LegSpan: ...


CURRENT: ContextVar[RequestTrace | None] = ContextVar("psserve_trace", default=None)


def leg_span(role: WorkerRole, worker: str) -> LegSpan:
    """The span of a leg that is sent now to `worker`, in the trace of the request that is being served."""
    trace = CURRENT.get()
    return UNTRACED if trace is None else trace.leg(role, worker)


@contextmanager
def traced_leg(role: WorkerRole, worker: str, headers: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """A span around a leg; gives the headers for the worker: `headers`, and whose child its spans are."""
    span = leg_span(role, worker)
    try:
        yield {**headers, **span.headers}
    except BaseException as error:
        span.end(error)
        raise
    span.end()
