"""Requests as a Chrome trace, which chrome://tracing and ui.perfetto.dev open: one track a session, one row a call.

The format is Google's "Trace Event Format": complete events ("ph": "X") with times in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psserve.bench.record import RequestRecord
from psserve.bench.record_file import RunHeader


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
