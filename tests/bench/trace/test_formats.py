"""Requests in the forms of other tools: Chrome's trace events, OpenTelemetry's OTLP/JSON."""

from __future__ import annotations

import json
from dataclasses import replace

from psserve.bench.record import RunHeader
from psserve.bench.trace.formats import chrome_trace, otlp_trace
from tests.bench.records import record

HEADER = RunHeader("run-1", "shared", 1_000.0)
SPANS = {"prefill": (0.1, 0.4), "decode": (0.4, 1.0)}
RECORDS = [record(spans=SPANS, request_id="r"), record(2.0, session="t", error="status 500: no", first_s=None)]


def test_chrome_gets_a_request_and_its_phases_in_microseconds() -> None:
    events = chrome_trace(HEADER, RECORDS)["traceEvents"]
    shown = {event["name"]: (event["ts"], event["dur"], event["pid"]) for event in events if event["ph"] == "X"}
    assert shown == {"math": (2e6, 1e6, 2), "prefill": (1e5, 3e5, 1), "decode": (4e5, 6e5, 1)}
    assert [event["args"]["name"] for event in events if event["ph"] == "M"] == ["session s", "session t"]


def test_otlp_is_what_the_protocol_reads() -> None:
    """Its own parser is the judge. (It takes ids as base64, where the protocol says hexadecimal.)"""
    from google.protobuf.json_format import ParseDict
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    parsed = ParseDict(otlp_trace(HEADER, RECORDS), ExportTraceServiceRequest())
    spans = parsed.resource_spans[0].scope_spans[0].spans
    assert [span.name for span in spans] == [
        *("session s", "request math", "prefill", "decode"),
        *("session t", "request math"),
    ]
    assert spans[2].end_time_unix_nano - spans[2].start_time_unix_nano == 300_000_000
    assert spans[5].status.message == "status 500: no"


def test_spans_hang_below_their_request_and_ids_are_the_same_each_time() -> None:
    spans = otlp_trace(HEADER, RECORDS)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    ids = {span["spanId"]: span for span in spans}
    assert len(ids) == len(spans)
    assert {len(span["traceId"]) for span in spans} == {32}
    assert ids[spans[2]["parentSpanId"]]["name"] == "request math"
    assert ids[spans[1]["parentSpanId"]]["name"] == "session s"
    assert json.dumps(otlp_trace(HEADER, RECORDS)) == json.dumps(otlp_trace(HEADER, [replace(r) for r in RECORDS]))
