"""The report as one HTML page that needs nothing else: no script of others, no font, no request to anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from psserve.bench.report.notes import notes
from psserve.bench.report.palette import ALL, colours
from psserve.bench.report.panels import Panel, figure
from psserve.bench.report.summary import Summary
from psserve.bench.report.svg import inline
from psserve.bench.report.tables import compared_table, figure_table, headline, name, ratio_table

FOLDER = Path(__file__).with_name("page")


def page(summary: Summary, shown: Sequence[Panel], facts: dict[str, str], settings: dict[str, str]) -> str:
    """The page. `facts`: what it was measured on, by label; `settings`: how each system was started."""
    return render(
        "report.html",
        palette=ALL,
        ours=summary.ours,
        others=[system for system in summary.systems if system != summary.ours],
        colours={system: colour.name for system, colour in colours(summary.systems).items()},
        where=name(summary.head),
        simulated=any(point.simulated for point in summary.points),
        headline=headline(summary),
        notes=notes(summary),
        pictures=[(panel, inline(figure(panel), panel.name)) for panel in shown],
        ratios=[compared_table(summary), *([ratio_table(summary)] if len(summary.cells) > 1 else [])],
        figures=[figure_table(summary, cell) for cell in summary.cells],
        head=name(summary.head),
        facts=facts,
        settings=settings,
    )


def render(template: str, **values: Any) -> str:
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
