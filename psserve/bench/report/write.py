"""A report as files in a folder: the page, and the same as JSON, as Markdown and as a picture.

The JSON has the ratios first, then what they were made from. The Markdown has the page's words and tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from psserve.bench.record import handoff_share
from psserve.bench.report.best import best_document, best_table, hits_table
from psserve.bench.report.drawing import save_figure
from psserve.bench.report.page import report_page
from psserve.bench.report.panels import overview, panels
from psserve.bench.report.summary import Point, Spread, Summary, summarise_points
from psserve.bench.report.tables import (
    TextTable,
    compared_table,
    figure_table,
    headline,
    notes,
    ratio_table,
    run_facts,
    server_settings,
)
from psserve.bench.result import Cell


def write_report(
    points: Sequence[Point], folder: Path, *, modules: int | None = None, load: float | None = None
) -> list[Path]:
    """Write report.html, report.md, report.json, report.png and report.svg into `folder`, and return their paths.

    `modules` and `load` choose what the headline is about, see summarise_points. Raises UsageError where nothing of
    that has run.
    """
    summary = summarise_points(points, modules, load)
    shown = panels(summary)
    told, settings = run_facts(summary), server_settings(summary)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"report.{kind}" for kind in ("html", "md", "json", "png", "svg")]
    html, text, data, png, svg = paths
    html.write_text(report_page(summary, shown, told, settings))
    text.write_text(report_markdown(summary, told, settings, png.name))
    data.write_text(json.dumps(document(summary), indent=1) + "\n")
    save_figure(overview(shown, f"{summary.ours} side by side"), png, svg)
    return paths


def document(summary: Summary) -> dict[str, Any]:
    """The report's data. `ratios`: other system -> metric -> how much better ours is (above 1: better), the middle one
    of the repeats in the headline's cell; `spread` has the smallest and the largest one."""
    head = summary.ratios(summary.head)
    return {
        "ratios": {system: {name: round(ratio.middle, 3) for name, ratio in of.items()} for system, of in head.items()},
        "spread": {system: {name: _range(ratio) for name, ratio in of.items()} for system, of in head.items()},
        "at": _place(summary.head),
        "ours": summary.ours,
        "best": best_document(summary),
        "simulated": any(point.simulated for point in summary.points),
        "partial_runs": sum(point.partial for point in summary.points),
        "cells": [_cell(summary, cell) for cell in summary.cells],
        **_facts(summary),
    }


def _cell(summary: Summary, cell: Cell) -> dict[str, Any]:
    return {
        **_place(cell),
        "ratios": {
            system: {name: {"middle": round(ratio.middle, 3), "range": _range(ratio)} for name, ratio in of.items()}
            for system, of in summary.ratios(cell).items()
        },
        "systems": {system: _system(summary, system, cell) for system in summary.systems if summary.of(system, cell)},
    }


def _system(summary: Summary, system: str, cell: Cell) -> dict[str, Any]:
    told = {metric: summary.values(system, cell, metric) for metric in summary.told}
    figures = {
        metric.name: {"middle": spread.middle, "range": [spread.low, spread.high], "unit": metric.unit}
        for metric, spread in told.items()
        if spread is not None
    }
    phases = summary.phases(system, cell)
    return {
        "repeats": len(summary.of(system, cell)),
        **figures,
        "phases_s": phases,
        "handoff_share": handoff_share(phases),
    }


def _facts(summary: Summary) -> dict[str, Any]:
    """On what it was measured, from the first run; commands of all."""
    first = summary.points[0].line
    told = first["psserve"]
    commands = sorted({str(point.line["psserve"].get("command")) for point in summary.points})
    return {"machine": told.get("machine"), "workload": told.get("workload"), "commands": commands}


def _place(cell: Cell) -> dict[str, Any]:
    place: dict[str, Any] = {"modules": cell.modules, cell.load.kind: cell.load.value}
    return place | ({"rate": cell.load.rate} if cell.load.kind == "limit" else {})


def _range(spread: Spread) -> list[float]:
    return [round(spread.low, 3), round(spread.high, 3)]


def report_markdown(summary: Summary, facts: dict[str, str], settings: dict[str, str], picture: str) -> str:
    """The document. `settings`: how each system was started; `picture`: the overview's path, seen from the file."""
    return "\n".join(_lines(summary, facts, settings, picture)) + "\n"


def _lines(summary: Summary, facts: dict[str, str], settings: dict[str, str], picture: str) -> Iterator[str]:
    yield f"# {summary.ours} side by side"
    yield ""
    yield f"{summary.head.title}; the middle of the repeats, and the smallest and largest of them."
    yield ""
    for system, claims in headline(summary).items():
        told = ", ".join(f"**{claim.ratio}** {claim.says} ({claim.range})" for claim in claims)
        yield f"- against {system}: {told}"
    yield ""
    for note in notes(summary):
        yield f"> {note}"
        yield ">"
    yield ""
    yield f"![Pictures of these figures]({picture})"
    yield ""
    yield from _table(compared_table(summary))
    if len(summary.cells) > 1:
        yield from _table(best_table(summary))
        yield from _table(ratio_table(summary))
        yield from _table(hits_table(summary))
    for cell in summary.cells:
        yield from _table(figure_table(summary, cell))
    yield "## How it was measured"
    yield ""
    for label, value in facts.items():
        yield f"- {label}: {value}"
    for system, text in settings.items():
        yield from ("", f"### {system}, as it was started first", "", "```text", text, "```")


def _table(table: TextTable) -> Iterator[str]:
    if not table.rows:
        return
    yield f"## {table.title}"
    yield ""
    yield _row(table.columns)
    yield _row(["---", *["---:"] * (len(table.columns) - 1)])
    for row in table.rows:
        yield _row(row)
    yield ""


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
