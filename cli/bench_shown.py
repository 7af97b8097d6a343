"""What the commands that write a report print: its ratios, and where it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from .output import show_table

BEST_TOLD = ("throughput", "p95_session")
COLUMNS = ("against", "metric", ">better", ">from", ">to")


def show_report(paths: Sequence[Path], as_json: bool) -> None:
    """Print the ratios (with --json: the whole report) of the report that is in `paths`, and say where its page is."""
    told = json.loads(next(path for path in paths if path.suffix == ".json").read_text())
    if as_json:
        click.echo(json.dumps(told, indent=1))
    else:
        show_table(COLUMNS, _rows(told))
    if told.get("best") and told["best"]["ratios"]:
        click.echo(f"psserve: each at its best limit: {_best(told['ours'], told['best'])}", err=True)
    click.echo(f"psserve: the report is {next(path for path in paths if path.suffix == '.html')}", err=True)


def _best(ours: str, best: Mapping[str, Any]) -> str:
    """`shared at 12; against disaggregated at 5: throughput 3.60x, p95_session 3.90x`."""
    at = {system: f"{of['at']:g}" for system, of in best["systems"].items()}
    ratios = (
        f"against {system} at {at[system]}: "
        + ", ".join(f"{name} {ratio['middle']:.2f}x" for name, ratio in of.items() if name in BEST_TOLD)
        for system, of in best["ratios"].items()
    )
    return f"{ours} at {at.get(ours, 'none')}; " + "; ".join(ratios)


def _rows(told: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (system, metric, f"{ratio:.2f}x", *(f"{edge:.2f}x" for edge in told["spread"][system][metric]))
        for system, ratios in told["ratios"].items()
        for metric, ratio in ratios.items()
    ]
