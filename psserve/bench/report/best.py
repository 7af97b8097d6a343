"""Systems over a sweep of sessions at a time: each at the limit that suits it best, and its cache hits at every limit.

The paper tells its systems' figures at the best limit of each (its Figure 3), and hits against the limit (Figure 4).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from psserve.bench.report.summary import COMPARED, P95_SESSION, PREFILL_HIT, THROUGHPUT, Metric, Spread, Summary
from psserve.bench.report.tables import CLAIMS, TextTable, figure_text, times, with_range
from psserve.bench.result import Cell

TOLD = (THROUGHPUT, P95_SESSION, PREFILL_HIT)


def best_cells(summary: Summary) -> dict[str, Cell]:
    """System -> its best cell of those that differ from the headline's in how many sessions there are at a time.

    Where sessions arrive at a rate that is the cell with the lowest p95 of their latencies, waiting for a place
    included; in a closed loop the one with the highest throughput. {} where less than two such cells have run.
    """
    cells = summary.curve
    if summary.head.load.kind == "rate" or len(cells) < 2:
        return {}
    metric = P95_SESSION if summary.head.load.kind == "limit" else THROUGHPUT
    sign = 1 if metric.higher_is_better else -1
    best = {}
    for system in summary.systems:
        told = [(sign * spread.middle, cell) for cell in cells if (spread := summary.values(system, cell, metric))]
        if told:
            best[system] = max(told, key=lambda one: one[0])[1]
    return best


def best_table(summary: Summary) -> TextTable:
    """Every system at its best limit; rows are empty where there was nothing to choose."""
    best = best_cells(summary)
    claims = [f"{summary.ours} has {says}" for says in CLAIMS.values()]
    rows = []
    for system, cell in best.items():
        figures = [with_range(summary.values(system, cell, metric), partial(figure_text, metric)) for metric in TOLD]
        ratios = [with_range(_ratio(summary, best, system, metric), times) for metric in CLAIMS]
        rows.append((system, f"{cell.load.value:g}", *figures, *ratios))
    columns = ("", "at a time", *(f"{metric.label} ({metric.unit})" for metric in TOLD), *claims)
    return TextTable(f"Each system at its best limit: {_where(summary)}", columns, tuple(rows))


def hits_table(summary: Summary) -> TextTable:
    """What prefill sides had in their caches, by load; rows are empty where only one load has run."""
    cells = summary.curve if len(summary.curve) > 1 else ()
    form = partial(figure_text, PREFILL_HIT)
    rows = tuple(
        (
            f"{cell.load.value:g}",
            *(with_range(summary.values(system, cell, PREFILL_HIT), form) for system in summary.systems),
        )
        for cell in cells
    )
    return TextTable(f"Prompt tokens that the prefill side had: {_where(summary)}", ("", *summary.systems), rows)


def best_document(summary: Summary) -> dict[str, Any] | None:
    """The same as data: `systems` at their best limits, and `ratios` between these; None where there is no choice."""
    best = best_cells(summary)
    if not best:
        return None
    return {
        "modules": summary.head.modules,
        "rate": summary.head.load.rate or None,
        "systems": {
            system: {
                "at": cell.load.value,
                **{
                    metric.name: _spread(spread)
                    for metric in TOLD
                    if (spread := summary.values(system, cell, metric)) is not None
                },
            }
            for system, cell in best.items()
        },
        "ratios": {
            system: {
                metric.name: _spread(ratio)
                for metric in COMPARED
                if (ratio := _ratio(summary, best, system, metric)) is not None
            }
            for system in best
            if system != summary.ours
        },
    }


def _ratio(summary: Summary, best: dict[str, Cell], system: str, metric: Metric) -> Spread | None:
    """How much better ours is at its best limit than `system` at its own."""
    if system == summary.ours or summary.ours not in best:
        return None
    return summary.between(best[summary.ours], system, best[system], metric)


def _spread(spread: Spread) -> dict[str, Any]:
    return {"middle": round(spread.middle, 4), "range": [round(spread.low, 4), round(spread.high, 4)]}


def _where(summary: Summary) -> str:
    head = summary.head
    arriving = f", {head.load.rate:g} sessions arriving a second" if head.load.kind == "limit" else ""
    return f"{head.modules} module{'s' if head.modules != 1 else ''}{arriving}"
