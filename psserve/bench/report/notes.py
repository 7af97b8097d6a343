"""What a reader must know before believing the figures: what was not whole, not clean, or not measured at all."""

from __future__ import annotations

from collections.abc import Iterator

from psserve.bench.report.summary import Summary
from psserve.bench.report.tables import name
from psserve.bench.result import warnings_of


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
                yield f"{point.system}, {name(point.cell)}, repeat {point.repeat + 1}: {warning}."


def _few(summary: Summary) -> Iterator[str]:
    counts = [len(made) for system in summary.systems if (made := summary.of(system, summary.head))]
    repeats = min(counts, default=3)
    if repeats < 3 and not all(point.simulated for point in summary.points):
        yield f"Some figures rest on {repeats} repeat{'s' if repeats > 1 else ''}: take their spread as unknown."
