"""Spans of a request's legs, for those who have no part in making traces. Imports no OpenTelemetry: see otel.py.

The trace travels with the request's task (and those that the task starts) in a context variable. Without tracing that
is never set, and a leg's span is one lookup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from psserve.contracts.router_config import WorkerRole


class LegSpan:
    """The span of one leg. This one: of a request that is not traced."""

    headers: Mapping[str, str] = {}
    """For the worker, so that its own spans become children."""

    def end(self, error: BaseException | None = None, events: Mapping[str, float | None] | None = None) -> None:
        """The leg is over. `events`: name -> when (monotonic seconds), None: did not happen. Later calls do nothing."""


UNTRACED = LegSpan()


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
