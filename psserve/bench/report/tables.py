"""The report's words and tables, as text: the page and the Markdown file say the same.

`notes` are what a reader must know before believing the figures: what was not whole, not clean, or not measured at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from psserve.bench.report.metric import COMPARED, P95_SESSION, THROUGHPUT, Metric
from psserve.bench.report.summary import Spread, Summary
from psserve.bench.result import Cell, warnings_of

CLAIMS = {THROUGHPUT: "more requests a second", P95_SESSION: "lower session latency, p95"}


@dataclass(frozen=True)
class Claim:
    """One ratio of the headline."""

    says: str
    ratio: str
    range: str
    is_better: bool


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def headline(summary: Summary) -> dict[str, list[Claim]]:
    """Other system -> how much better ours is, in the headline's cell."""
    claims: dict[str, list[Claim]] = {}
    for system, ratios in summary.ratios(summary.head).items():
        known = [(says, ratios[metric.name]) for metric, says in CLAIMS.items() if metric.name in ratios]
        claims[system] = [Claim(says, times(ratio.middle), _range(ratio), ratio.middle >= 1) for says, ratio in known]
    return claims


def ratio_table(summary: Summary) -> Table:
    """How much better ours is, cell by cell."""
    others = [system for system in summary.systems if system != summary.ours]
    pairs = [(system, metric) for system in others for metric in CLAIMS]
    rows = []
    for cell in summary.cells:
        ratios = [summary.ratio(system, cell, metric) for system, metric in pairs]
        if any(ratios):
            rows.append((cell.title, *(_with_range(ratio, times) for ratio in ratios)))
    columns = ("", *(f"{system}: {metric.label}" for system, metric in pairs))
    return Table(f"How much better {summary.ours} is", columns, tuple(rows))


def compared_table(summary: Summary) -> Table:
    """All ratios of the headline's cell."""
    others = [system for system in summary.systems if system != summary.ours]
    rows = []
    for metric in COMPARED:
        ratios = [summary.ratio(system, summary.head, metric) for system in others]
        if any(ratios):
            rows.append((metric.label, *(_with_range(ratio, times) for ratio in ratios)))
    return Table(f"{summary.head.title}: how much better {summary.ours} is", ("", *others), tuple(rows))


def figure_table(summary: Summary, cell: Cell) -> Table:
    """The absolute figures of a cell."""
    rows = []
    for metric in summary.told:
        spreads = [summary.values(system, cell, metric) for system in summary.systems]
        if any(spreads):
            label = metric.label if metric.unit == "share" else f"{metric.label} ({metric.unit})"
            rows.append((label, *(_with_range(spread, partial(figure, metric)) for spread in spreads)))
    return Table(cell.title, ("", *summary.systems), tuple(rows))


def times(ratio: float) -> str:
    """A ratio as text, to two digits that mean something: 3.91x, 12x."""
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"


def figure(metric: Metric, value: float) -> str:
    """A figure as text."""
    return f"{value:.1%}" if metric.unit == "share" else number(value)


def number(value: float) -> str:
    """Three digits that mean something: 0.0123, 1.23, 123, 12300."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def _range(spread: Spread) -> str:
    return f"{times(spread.low)} to {times(spread.high)}" if spread.count > 1 else "one run"


def _with_range(spread: Spread | None, form: Callable[[float], str]) -> str:
    if spread is None:
        return "-"
    middle, low, high = form(spread.middle), form(spread.low), form(spread.high)
    return middle if low == high else f"{middle} ({low} to {high})"


def notes(summary: Summary) -> list[str]:
    """One sentence each, the gravest first."""
    return list(dict.fromkeys((*_simulated(summary), *_partial(summary), *_warnings(summary), *_few(summary))))


def _simulated(summary: Summary) -> Iterator[str]:
    simulated = sum(point.simulated for point in summary.points)
    if simulated == len(summary.points):
        yield "Simulated: these figures were computed by psserve simulate, not measured."
    elif simulated:
        yield f"{simulated} of {len(summary.points)} runs are simulated, not measured."


def _partial(summary: Summary) -> Iterator[str]:
    partial = sum(point.partial for point in summary.points)
    if partial:
        yield f"{partial} of {len(summary.points)} runs were interrupted; they are in no figure here."


def _warnings(summary: Summary) -> Iterator[str]:
    for point in summary.points:
        if not point.partial:
            for warning in warnings_of(point.line):
                yield f"{point.system}, {point.cell.title}, repeat {point.repeat + 1}: {warning}."


def _few(summary: Summary) -> Iterator[str]:
    counts = [len(made) for system in summary.systems if (made := summary.of(system, summary.head))]
    repeats = min(counts, default=3)
    if repeats < 3 and not all(point.simulated for point in summary.points):
        yield f"Some figures rest on {repeats} repeat{'s' if repeats > 1 else ''}: take their spread as unknown."
