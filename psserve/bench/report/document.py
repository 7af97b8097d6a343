"""The report as JSON: ratios first, then what they were made from."""

from __future__ import annotations

from typing import Any

from psserve.bench.record import handoff_share
from psserve.bench.report.point import Cell
from psserve.bench.report.summary import Spread, Summary


def document(summary: Summary) -> dict[str, Any]:
    """The report's data. `ratios`: other system -> metric -> how much better ours is (above 1: better), the middle one
    of the repeats in the headline's cell; `spread` has the smallest and the largest one."""
    head = summary.ratios(summary.head)
    return {
        "ratios": {system: {name: round(ratio.middle, 3) for name, ratio in of.items()} for system, of in head.items()},
        "spread": {system: {name: _range(ratio) for name, ratio in of.items()} for system, of in head.items()},
        "at": _place(summary.head),
        "ours": summary.ours,
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
    return {"modules": cell.modules, cell.load.kind: cell.load.value}


def _range(spread: Spread) -> list[float]:
    return [round(spread.low, 3), round(spread.high, 3)]
