"""The requests of one session as the rows of a waterfall, and how a terminal shows it.

There a row is a line, its phases in colours, and as letters where there are none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psserve.bench.record import PHASES, RequestRecord, Spans
from psserve.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


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


STYLES = {
    "router_queue": ("r", "bright_black"),
    "prefill_queue": ("q", "yellow"),
    "prefill": ("P", "red"),
    "transfer": ("t", "magenta"),
    "decode_queue": ("w", "blue"),
    "decode": ("D", "green"),
}
UNKNOWN = ("·", "white")
"""A request whose servers told nothing."""


def show_waterfall(shown: Waterfall, out: Console, width: int = 60) -> None:
    """Print it on `out`; bars are `width` columns for the whole session."""
    from psserve.console import show, table

    columns = ("step", "module", ">prompt", ">cached", ">out", ">seconds", "")
    made = table(columns, [])
    for row in shown.rows:
        cells = (str(row.step), row.module, str(row.prompt_tokens), str(row.cached_tokens), str(row.output_tokens))
        seconds = f"{row.end - row.begin:.3f}"
        made.add_row(*cells, seconds, _bar(row, width / shown.seconds if shown.seconds else 0.0))
    show(made, out)
    show(_legend(), out)


def _bar(row: Row, scale: float) -> Text:
    from rich.text import Text

    bar = Text(" " * round(row.begin * scale), no_wrap=True)
    spans = row.spans or {"": (row.begin, row.end)}
    for phase, (begin, end) in spans.items():
        letter, style = STYLES.get(phase, UNKNOWN)
        bar.append(letter * (round(end * scale) - round(begin * scale)), style=style)
    if row.error is not None:
        bar.append(f" {row.error}", style="red")
    return bar


def _legend() -> Text:
    from rich.text import Text

    return Text("\n").join(
        Text.assemble((STYLES[phase][0], STYLES[phase][1]), f" {text}") for phase, text in PHASES.items()
    )
