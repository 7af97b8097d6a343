"""The requests of one session as the rows of a waterfall."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psserve.bench.record import RequestRecord
from psserve.bench.trace.phases import Spans
from psserve.errors import UsageError


@dataclass(frozen=True)
class Row:
    """One request. Times are seconds since the session's first request was sent."""

    step: int
    module: str
    begin: float
    end: float
    spans: Spans
    """Empty where the servers told nothing of it."""
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    error: str | None


@dataclass(frozen=True)
class Waterfall:
    """One session."""

    session: str
    rows: tuple[Row, ...]

    @property
    def seconds(self) -> float:
        """From the first request's sending to the last one's end."""
        return max(row.end for row in self.rows)


def waterfall(records: Iterable[RequestRecord], session: str | None = None) -> Waterfall:
    """Of `session`; by default of the one whose time is the middle one of all, which is nobody's exception.

    Raises UsageError where there is no such session, or none at all.
    """
    sessions = _sessions(records)
    if not sessions:
        raise UsageError("there are no requests in this run: nothing to show")
    if session is None:
        session = _typical(sessions)
    if session not in sessions:
        raise UsageError(f"the run has no session {session!r}; it has {_some(sorted(sessions))}")
    made = sorted(sessions[session], key=lambda record: (record.sent_s, record.call))
    start = made[0].sent_s
    return Waterfall(session, tuple(_row(record, start) for record in made))


def _sessions(records: Iterable[RequestRecord]) -> dict[str, list[RequestRecord]]:
    sessions: dict[str, list[RequestRecord]] = defaultdict(list)
    for record in records:
        sessions[record.session].append(record)
    return sessions


def _typical(sessions: dict[str, list[RequestRecord]]) -> str:
    """The median session; of those whose spans are known, and of none of the warm-up, where there are others."""
    counted = [name for name, made in sessions.items() if not made[0].warmup] or list(sessions)
    told = [name for name in counted if all(record.spans for record in sessions[name])] or counted
    told.sort(key=lambda name: _seconds(sessions[name]))
    return told[len(told) // 2]


def _seconds(made: Sequence[RequestRecord]) -> float:
    return max(record.done_s for record in made) - min(record.sent_s for record in made)


def _row(record: RequestRecord, start: float) -> Row:
    return Row(
        step=record.step,
        module=record.module,
        begin=record.sent_s - start,
        end=record.done_s - start,
        spans={phase: (begin - start, end - start) for phase, (begin, end) in record.spans.items()},
        prompt_tokens=record.prompt_tokens,
        cached_tokens=record.cached_tokens,
        output_tokens=record.output_tokens,
        error=record.error,
    )


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
