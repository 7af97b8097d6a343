"""The report, and the waterfall of one session, as HTML pages that need nothing else.

No script of others, no font, no request to anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psserve.bench.record import PHASES, RunHeader
from psserve.bench.report.best import best_table, hits_table
from psserve.bench.report.drawing import ALL_COLOURS, PHASE_COLOURS, colours, inline
from psserve.bench.report.panels import Panel, figure
from psserve.bench.report.summary import Summary
from psserve.bench.report.tables import (
    TextTable,
    compared_table,
    figure_table,
    headline,
    notes,
    number_text,
    ratio_table,
)
from psserve.bench.trace.waterfall import Row, Waterfall

FOLDER = Path(__file__).with_name("page")


def report_page(summary: Summary, shown: Sequence[Panel], facts: dict[str, str], settings: dict[str, str]) -> str:
    """The page. `facts`: what it was measured on, by label; `settings`: how each system was started."""
    return render_page(
        "report.html",
        palette=ALL_COLOURS,
        ours=summary.ours,
        others=[system for system in summary.systems if system != summary.ours],
        colours={system: colour.name for system, colour in colours(summary.systems).items()},
        where=summary.head.title,
        simulated=any(point.simulated for point in summary.points),
        headline=headline(summary),
        notes=notes(summary),
        pictures=[(panel, inline(figure(panel), panel.name)) for panel in shown],
        ratios=[compared_table(summary), *_over_cells(summary)],
        figures=[figure_table(summary, cell) for cell in summary.cells],
        head=summary.head.title,
        facts=facts,
        settings=settings,
    )


def _over_cells(summary: Summary) -> list[TextTable]:
    return [best_table(summary), ratio_table(summary), hits_table(summary)] if len(summary.cells) > 1 else []


def render_page(template: str, **values: Any) -> str:
    """A page from its template; `style` is added, and every value is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["spread"] = _spread
    style = (FOLDER / "style.css").read_text()
    return environment.get_template(template).render(style=style, **values)


def _spread(cell: str) -> str:
    """A table's cell, with what is in brackets made small."""
    from markupsafe import Markup

    middle, _, rest = cell.partition(" (")
    return Markup("{}<small>{}</small>").format(middle, rest.removesuffix(")")) if rest else middle


@dataclass(frozen=True)
class BarPart:
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
    return render_page(
        "session.html",
        palette=ALL_COLOURS,
        header=header,
        session=shown.session,
        seconds=number_text(shown.seconds),
        legend=[(PHASE_COLOURS[phase].name, phase.replace("_", " "), PHASES[phase]) for phase in known],
        rows=[(row, number_text(row.end - row.begin), _parts(row, whole)) for row in shown.rows],
        ticks=[(place, number_text(whole * place / 100)) for place in (0, 25, 50, 75, 100)],
    )


def _parts(row: Row, whole: float) -> list[BarPart]:
    if not row.spans:
        return [_part("", "the servers told nothing of it", row.begin, row.end, whole)]
    return [
        _part(PHASE_COLOURS[phase].name, f"{phase.replace('_', ' ')}: {number_text(end - begin)} s", begin, end, whole)
        for phase, (begin, end) in row.spans.items()
    ]


def _part(colour: str, says: str, begin: float, end: float, whole: float) -> BarPart:
    return BarPart(colour, round(100 * begin / whole, 3), round(100 * (end - begin) / whole, 3), says)
