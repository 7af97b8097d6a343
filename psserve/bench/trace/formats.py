"""The requests of a run in the formats of other programs.

Mooncake's trace as AIPerf takes it (`mooncake_trace`): JSON Lines, a session's requests one after the other. `psserve
bench --trace` replays such a file, too.

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
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import psserve
from psserve.bench.record import RequestRecord, RunHeader
from psserve.errors import UsageError


def mooncake_trace(records: Iterable[RequestRecord]) -> Iterator[dict[str, Any]]:
    """The lines, session by session in the order of their arrival, without warm-up and what failed.

    `input_length` is what a request adds to its session's context. Which texts sessions share is not told: records do
    not know it. Raises UsageError for a session that asks several modules at once, which the format has no words for.
    """
    sessions: dict[str, list[RequestRecord]] = defaultdict(list)
    for record in records:
        if not record.warmup and record.error is None:
            if record.call:
                raise UsageError("sessions that ask several modules at once cannot be told as a trace of this kind")
            sessions[record.session].append(record)
    made = sorted((sorted(of, key=lambda one: one.step) for of in sessions.values()), key=lambda of: _arrival(of[0]))
    for requests in made:
        first = requests[0]
        yield _line(first, first.prompt_tokens) | {"timestamp": _ms(_arrival(first) - _arrival(made[0][0]))}
        for before, record in pairwise(requests):
            added = record.prompt_tokens - before.prompt_tokens - before.output_tokens
            yield _line(record, max(1, added)) | {"delay": _ms(max(0.0, record.due_s - before.done_s))}


def _arrival(first: RequestRecord) -> float:
    return first.due_s if first.arrived_s is None else first.arrived_s


def _line(record: RequestRecord, added: int) -> dict[str, Any]:
    lengths = {"input_length": added, "output_length": record.output_tokens}
    return {"session_id": record.session, **lengths, "extra": {"model": record.module}}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


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
