"""Traces by OpenTelemetry, sent over OTLP/HTTP.

    POST chat                      server span; parent: the client's traceparent
      receive                      the body read and checked, the module chosen
      queue                        until the first legs were sent: waiting for its turn, the choice of workers
      prefill leg, decode leg      one of each for every attempt of every sequence; the workers get their traceparent

Sampling, headers for the collector and resource attributes are OpenTelemetry's own variables (OTEL_*).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from time import monotonic, time_ns
from urllib.parse import urlsplit

from aiohttp import web
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import psserve
from psserve.contracts.router_config import WorkerRole
from psserve.router.observability.exchange import Exchange, LegSpan
from psserve.router.observability.tracing import CURRENT, Tracing

TRACES_PATH = "/v1/traces"
CLOSE_S = 2.0

_propagator = TraceContextTextMapPropagator()


def otlp_tracing(endpoint: str | None) -> Tracing:
    """Traces to a collector; None: the one that OTEL_EXPORTER_OTLP_ENDPOINT names."""
    resource = Resource.create({"service.name": "psserve-router", "service.version": psserve.__version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=None if endpoint is None else traces_url(endpoint))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return OtelTracing(provider)


def traces_url(endpoint: str) -> str:
    """The URL for spans at `endpoint`: host:port, as SGLang's flag has it, or a URL, whose path (if any) is kept."""
    url = endpoint if "://" in endpoint else f"http://{endpoint}"
    return url if urlsplit(url).path not in ("", "/") else url.rstrip("/") + TRACES_PATH


class OtelTracing(Tracing):
    """Traces by a tracer provider, which it owns."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("psserve.router", psserve.__version__)

    @contextmanager
    def request(self, request: web.Request, exchange: Exchange) -> Iterator[None]:
        if request.method != "POST":
            yield
            return
        carrier = {name: request.headers[name] for name in _propagator.fields if name in request.headers}
        clock = _Clock()
        span = self._tracer.start_span(
            "request",
            context=_propagator.extract(carrier),
            kind=SpanKind.SERVER,
            start_time=clock.ns(exchange.started),
        )
        exchange.trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        ours = _Request(self._tracer, span, clock)
        token = CURRENT.set(ours)
        try:
            yield
        finally:
            CURRENT.reset(token)
            ours.finish(exchange)

    def close(self) -> None:
        """Send what is left, for CLOSE_S at most: a collector that does not answer must not keep the router."""
        sending = Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(CLOSE_S)


class _Clock:
    """Monotonic seconds as nanoseconds since 1970: one reading of both for all spans of a request."""

    def __init__(self) -> None:
        self._offset = time_ns() - int(monotonic() * 1e9)

    def ns(self, when: float) -> int:
        return self._offset + int(when * 1e9)


class _Request:
    """A request's server span, and those below it."""

    def __init__(self, tracer: trace.Tracer, span: Span, clock: _Clock) -> None:
        self._tracer, self._span, self._clock = tracer, span, clock
        self._below = trace.set_span_in_context(span)

    def leg(self, role: WorkerRole, worker: str) -> LegSpan:
        attributes = {"psserve.role": role, "psserve.worker": worker}
        span = self._tracer.start_span(
            f"{role} leg",
            context=self._below,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=self._clock.ns(monotonic()),
        )
        return _Leg(span, self._clock)

    def finish(self, exchange: Exchange) -> None:
        """End the server span, described by what `exchange` knows now."""
        self._phase("receive", exchange.started, exchange.accepted)
        self._phase("queue", exchange.accepted, exchange.sent)
        self._span.update_name(f"POST {exchange.route}")
        self._span.set_attributes(_attributes(exchange))
        if exchange.first_byte is not None:
            self._span.add_event("first byte", timestamp=self._clock.ns(exchange.first_byte))
        if exchange.code is not None and not exchange.code.startswith("2"):
            self._span.set_status(Status(StatusCode.ERROR, exchange.code))
        self._span.end(self._clock.ns(monotonic()))

    def _phase(self, name: str, start: float | None, end: float | None) -> None:
        if start is None or end is None:
            return
        span = self._tracer.start_span(name, context=self._below, start_time=self._clock.ns(start))
        span.end(self._clock.ns(end))


class _Leg(LegSpan):
    def __init__(self, span: Span, clock: _Clock) -> None:
        self._span, self._clock = span, clock
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, trace.set_span_in_context(span))
        self.headers = carrier

    def end(self, error: BaseException | None = None, events: Mapping[str, float | None] | None = None) -> None:
        if not self._span.is_recording():
            return
        for name, when in (events or {}).items():
            if when is not None:
                self._span.add_event(name, timestamp=self._clock.ns(when))
        if error is not None:
            # The kind alone: the text of an error may quote the client's request.
            self._span.set_status(Status(StatusCode.ERROR, getattr(error, "reason", type(error).__name__)))
        self._span.end(self._clock.ns(monotonic()))


def _attributes(exchange: Exchange) -> dict[str, str | int]:
    """Names of OpenTelemetry's conventions for generative AI where there are such."""
    usage = exchange.usage or {}
    known = {
        "psserve.request_id": exchange.request_id,
        "psserve.prefill": exchange.prefill,
        "psserve.decode": exchange.decode,
        "psserve.code": exchange.code,
        "gen_ai.request.model": exchange.module,
        "gen_ai.usage.input_tokens": usage.get("prompt_tokens"),
        "gen_ai.usage.output_tokens": usage.get("completion_tokens"),
        "psserve.cached_tokens": exchange.cached_tokens,
        "psserve.shared_tokens": exchange.shared_tokens if usage else None,
    }
    return {name: value for name, value in known.items() if value is not None}
