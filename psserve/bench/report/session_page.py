"""The waterfall of one session as an HTML page that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from psserve.bench.record import PHASES, RunHeader
from psserve.bench.report.axes import number
from psserve.bench.report.page import render
from psserve.bench.report.palette import ALL
from psserve.bench.report.palette import PHASES as COLOURS
from psserve.bench.trace.waterfall import Row, Waterfall


@dataclass(frozen=True)
class Part:
    """A piece of a bar. Places are percent of the session."""

    colour: str
    """Empty: what happened is not known."""
    left: float
    width: float
    says: str


def session_page(header: RunHeader, shown: Waterfall) -> str:
    """The page."""
    whole = shown.seconds or 1.0
    known = [phase for phase in PHASES if any(phase in row.spans for row in shown.rows)]
    return render(
        "session.html",
        palette=ALL,
        header=header,
        session=shown.session,
        seconds=number(shown.seconds),
        legend=[(COLOURS[phase].name, phase.replace("_", " "), PHASES[phase]) for phase in known],
        rows=[(row, number(row.end - row.begin), _parts(row, whole)) for row in shown.rows],
        ticks=[(place, number(whole * place / 100)) for place in (0, 25, 50, 75, 100)],
    )


def _parts(row: Row, whole: float) -> list[Part]:
    if not row.spans:
        return [_part("", "the servers told nothing of it", row.begin, row.end, whole)]
    return [
        _part(COLOURS[phase].name, f"{phase.replace('_', ' ')}: {number(end - begin)} s", begin, end, whole)
        for phase, (begin, end) in row.spans.items()
    ]


def _part(colour: str, says: str, begin: float, end: float, whole: float) -> Part:
    return Part(colour, round(100 * begin / whole, 3), round(100 * (end - begin) / whole, 3), says)
