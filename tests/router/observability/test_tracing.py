"""Traces of requests: in memory, and once to a collector over HTTP."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from psserve.router.observability.otel import OtelTracing, traces_url
from tests.router.conftest import Fleet, eventually
from tests.router.observability.collector import Collector

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRET = "what the client asks"


@pytest.fixture
async def exporter(fleet: Fleet) -> InMemorySpanExporter:
    """Where the spans of `fleet` go."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    fleet.state.tracing = OtelTracing(provider)
    return kept


async def ask(fleet: Fleet, **fields: object) -> None:
    """One request under the client's trace, to its very end."""
    body = {"model": "math", "prompt": SECRET, "max_tokens": 3} | fields
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
    async with fleet.http.post(f"{fleet.url}/v1/completions", json=body, headers=headers) as response:
        await response.read()
    await eventually(lambda: fleet.state.activity.ended)


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


async def test_a_request_is_a_span_with_its_phases_and_legs_below(fleet: Fleet, exporter: InMemorySpanExporter) -> None:
    await ask(fleet, stream=True)
    spans = by_name(exporter)
    assert set(spans) == {"POST completions", "receive", "queue", "prefill leg", "decode leg"}
    server = spans.pop("POST completions")
    assert server.context is not None
    assert server.parent is not None
    assert (f"{server.context.trace_id:032x}", f"{server.parent.span_id:016x}") == (TRACE, PARENT)
    assert {span.parent.span_id for span in spans.values() if span.parent} == {server.context.span_id}
    assert server.attributes is not None
    assert server.attributes["gen_ai.request.model"] == "math"
    assert server.attributes["gen_ai.usage.output_tokens"] == 3
    assert [event.name for event in spans["decode leg"].events] == ["first output", "last output"]
    assert all(span.end_time >= span.start_time for span in spans.values())  # type: ignore[operator]  # all have ended


async def test_workers_get_their_own_leg_as_parent(fleet: Fleet, exporter: InMemorySpanExporter) -> None:
    await ask(fleet)
    spans = by_name(exporter)
    for worker, role in ((fleet.prefill, "prefill"), (fleet.math, "decode")):
        context = spans[f"{role} leg"].context
        assert context is not None
        assert worker.headers[-1]["traceparent"] == f"00-{TRACE}-{context.span_id:016x}-01"
        assert worker.headers[-1]["tracestate"] == "vendor=1"


async def test_a_failed_leg_and_its_request_are_errors(fleet: Fleet, exporter: InMemorySpanExporter) -> None:
    fleet.math.faults.append("status_400")
    await ask(fleet)
    spans = by_name(exporter)
    assert spans["decode leg"].status.status_code is StatusCode.ERROR
    assert spans["POST completions"].status.description == "400"


async def test_no_span_holds_text_of_the_client(fleet: Fleet, exporter: InMemorySpanExporter) -> None:
    fleet.math.faults.append("validation")  # quotes the body
    await ask(fleet)
    assert SECRET not in "".join(span.to_json() for span in exporter.get_finished_spans())


async def test_what_only_tells_is_not_traced(fleet: Fleet, exporter: InMemorySpanExporter) -> None:
    await fleet.get("/metrics")
    assert not exporter.get_finished_spans()


async def test_spans_reach_a_collector(make_fleet: Callable[..., Awaitable[Fleet]]) -> None:
    collector = Collector()
    fleet = await make_fleet(otlp_traces_endpoint=await collector.start())
    try:
        await ask(fleet)
        await fleet.state.close()  # sends what is left
        assert {"POST completions", "prefill leg", "decode leg"} <= {span.name for span in collector.spans}
        assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    finally:
        await collector.stop()


async def test_without_tracing_the_clients_parent_is_passed_on(fleet: Fleet) -> None:
    await ask(fleet)
    assert fleet.prefill.headers[-1]["traceparent"] == f"00-{TRACE}-{PARENT}-01"


def test_opentelemetry_is_not_imported_without_tracing() -> None:
    program = "import sys, psserve.router.__main__; sys.exit('opentelemetry' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("localhost:4318", "http://localhost:4318/v1/traces"),
        ("https://collector.example/", "https://collector.example/v1/traces"),
        ("http://collector:4318/own/path", "http://collector:4318/own/path"),
    ],
)
def test_the_endpoint_is_read_as_sglang_and_opentelemetry_do(endpoint: str, url: str) -> None:
    assert traces_url(endpoint) == url
