"""Requests in the forms of other tools: Chrome's trace events, OpenTelemetry's OTLP/JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from psserve.bench.record import RunHeader, write_records
from psserve.bench.session import Call, Session, Step
from psserve.bench.trace.formats import chrome_trace, mooncake_trace, otlp_trace
from psserve.bench.workloads.trace import TraceOptions, read_trace
from psserve.cli.main import cli
from psserve.errors import UsageError
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


def test_a_run_is_a_trace_that_asks_the_same_again(tmp_path: Path) -> None:
    made = [
        record(0.0, session="warm", warmup=True),
        record(8.0, session="b", module="code", arrived_s=3.5, due_s=8.0),
        record(3.0, session="a", prompt_tokens=100),
        record(4.5, session="a", step=1, module="code", due_s=4.25, prompt_tokens=150),
        record(6.0, session="a", step=2, error="status 500"),
    ]
    records, trace = tmp_path / "records.jsonl", tmp_path / "trace.jsonl"
    write_records(records, HEADER, made)
    done = CliRunner().invoke(cli, ["bench", "trace", str(records), "--mooncake", str(trace)])
    assert done.exit_code == 0, done.output
    a = (Step(100, (Call("math", 3),)), Step(47, (Call("code", 3),), delay_s=0.25))
    assert read_trace(trace, TraceOptions()) == [
        Session(id="a", system="", system_tokens=0, steps=a, start_s=0.0),
        Session(id="b", system="", system_tokens=0, steps=(Step(100, (Call("code", 3),)),), start_s=0.5),
    ]


def test_calls_at_once_are_no_trace_of_that_kind() -> None:
    with pytest.raises(UsageError, match="several modules at once"):
        list(mooncake_trace([record(), record(call=1)]))
