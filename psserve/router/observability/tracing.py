"""Where a request's trace is, for those who have no part in making it. Imports no OpenTelemetry: see otel.py.

The trace travels with the request's task (and those that the task starts) in a context variable. Without tracing that
is never set, and a leg's span is one lookup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from psserve.contracts.router_config import Role
from psserve.router.observability.sequence import UNTRACED, LegSpan

if TYPE_CHECKING:
    from aiohttp import web

    from psserve.router.answers.exchange import Exchange


class RequestTrace(Protocol):
    """The trace of one request."""

    def leg(self, role: Role, worker: str) -> LegSpan: ...


class Tracing:
    """Makes traces of requests. This one: none."""

    def request(self, request: web.Request, exchange: Exchange) -> AbstractContextManager[object]:
        """A span around a POST, a child of what its headers name. `exchange` is read at the end."""
        return nullcontext()

    def close(self) -> None:
        """Send what has not been sent."""


CURRENT: ContextVar[RequestTrace | None] = ContextVar("psserve_trace", default=None)


def leg_span(role: Role, worker: str) -> LegSpan:
    """The span of a leg that is sent now to `worker`, in the trace of the request that is being served."""
    trace = CURRENT.get()
    return UNTRACED if trace is None else trace.leg(role, worker)


@contextmanager
def traced_leg(role: Role, worker: str, headers: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """A span around a leg; gives the headers for the worker: `headers`, and whose child its spans are."""
    span = leg_span(role, worker)
    try:
        yield {**headers, **span.headers}
    except BaseException as error:
        span.end(error)
        raise
    span.end()
