"""The requests of a run in the formats of other programs.

Chrome's trace, which chrome://tracing and ui.perfetto.dev open: one track a session, one row a call. The format is
Google's "Trace Event Format": complete events ("ph": "X") with times in microseconds.

OpenTelemetry's traces in OTLP/JSON, one trace a session; any collector takes it at /v1/traces:

session
`- request            attributes: module, tokens; an event for the first token
   |- router_queue
   |- prefill ...     one span a phase
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import psserve
from psserve.bench.record import RequestRecord, RunHeader


def chrome_trace(header: RunHeader, records: Iterable[RequestRecord]) -> dict[str, Any]:
    """The document. Sessions are shown as processes, and what a session asks for at once as their threads."""
    numbers: dict[str, int] = {}
    events: list[dict[str, Any]] = []
    for record in records:
        if record.session not in numbers:
            numbers[record.session] = len(numbers) + 1
            events.append(_name(numbers[record.session], record.session))
        place = {"pid": numbers[record.session], "tid": record.call}
        events.append(_event(record.module, record.sent_s, record.done_s, place, _arguments(record)))
        events += [_event(phase, begin, end, place, {}) for phase, (begin, end) in record.spans.items()]
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"run": header.run, "system": header.system, "started": header.started},
    }


def _name(number: int, session: str) -> dict[str, Any]:
    return {"ph": "M", "name": "process_name", "pid": number, "args": {"name": f"session {session}"}}


def _event(name: str, begin: float, end: float, place: dict[str, int], arguments: dict[str, Any]) -> dict[str, Any]:
    times = {"ts": round(begin * 1e6, 3), "dur": round((end - begin) * 1e6, 3)}
    return {"ph": "X", "cat": "psserve", "name": name, **times, **place, "args": arguments}


def _arguments(record: RequestRecord) -> dict[str, Any]:
    known = {
        "step": record.step,
        "request_id": record.request_id,
        "prompt_tokens": record.prompt_tokens,
        "cached_tokens": record.cached_tokens,
        "output_tokens": record.output_tokens,
        "first_token_s": None if record.first_s is None else round(record.first_s - record.sent_s, 6),
        "error": record.error,
    }
    return {name: value for name, value in known.items() if value is not None}


SPAN_CLIENT, SPAN_INTERNAL = 3, 1
"""SpanKind of the protocol."""
STATUS_ERROR = 2
"""StatusCode of the protocol."""


def otlp_trace(header: RunHeader, records: Iterable[RequestRecord]) -> dict[str, Any]:
    """The body of an ExportTraceServiceRequest. The same run gives the same ids."""
    sessions: dict[str, list[RequestRecord]] = defaultdict(list)
    for record in records:
        sessions[record.session].append(record)
    spans = [span for name, made in sessions.items() for span in _session(header, name, made)]
    resource = {"service.name": f"psserve-bench-{header.system}", "psserve.run": header.run}
    scope = {"name": "psserve.bench", "version": psserve.__version__}
    return {
        "resourceSpans": [
            {"resource": {"attributes": _attributes(resource)}, "scopeSpans": [{"scope": scope, "spans": spans}]}
        ]
    }


def _session(header: RunHeader, name: str, made: Sequence[RequestRecord]) -> list[dict[str, Any]]:
    trace = _id(32, header.run, name)
    root = _id(16, header.run, name)
    begin, end = min(record.sent_s for record in made), max(record.done_s for record in made)
    spans = [_span(header, trace, root, "", f"session {name}", (begin, end))]
    for record in made:
        request = _id(16, header.run, name, record.step, record.call)
        span = _span(header, trace, request, root, f"request {record.module}", (record.sent_s, record.done_s))
        spans.append(span | _told(header, record))
        for phase, times in record.spans.items():
            child = _id(16, header.run, name, record.step, record.call, phase)
            spans.append(_span(header, trace, child, request, phase, times))
    return spans


def _span(
    header: RunHeader, trace: str, identity: str, parent: str, name: str, times: tuple[float, float]
) -> dict[str, Any]:
    return {
        "traceId": trace,
        "spanId": identity,
        "parentSpanId": parent,
        "name": name,
        "kind": SPAN_INTERNAL,
        "startTimeUnixNano": _nanoseconds(header, times[0]),
        "endTimeUnixNano": _nanoseconds(header, times[1]),
    }


def _told(header: RunHeader, record: RequestRecord) -> dict[str, Any]:
    """What the span of a request has beside name and times."""
    known = {
        "psserve.request_id": record.request_id,
        "psserve.cached_tokens": record.cached_tokens,
        "gen_ai.request.model": record.module,
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
    }
    told: dict[str, Any] = {"kind": SPAN_CLIENT, "attributes": _attributes(known)}
    if record.first_s is not None:
        told["events"] = [{"name": "first token", "timeUnixNano": _nanoseconds(header, record.first_s)}]
    if record.error is not None:
        told["status"] = {"code": STATUS_ERROR, "message": record.error}
    return told


def _nanoseconds(header: RunHeader, seconds: float) -> str:
    """64-bit numbers are strings in the protocol's JSON."""
    return str(int((header.started + seconds) * 1e9))


def _attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": str(value)}}
        for key, value in values.items()
        if value is not None
    ]


def _id(digits: int, *parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:digits]
