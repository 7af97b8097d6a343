"""What the commands that write a report print: its ratios, and where it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from .output import show_table

COLUMNS = ("against", "metric", ">better", ">from", ">to")


def show_report(paths: Sequence[Path], as_json: bool) -> None:
    """Print the ratios (with --json: the whole report) of the report that is in `paths`, and say where its page is."""
    told = json.loads(next(path for path in paths if path.suffix == ".json").read_text())
    if as_json:
        click.echo(json.dumps(told, indent=1))
    else:
        show_table(COLUMNS, _rows(told))
    click.echo(f"psserve: the report is {next(path for path in paths if path.suffix == '.html')}", err=True)


def _rows(told: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (system, metric, f"{ratio:.2f}x", *(f"{edge:.2f}x" for edge in told["spread"][system][metric]))
        for system, ratios in told["ratios"].items()
        for metric, ratio in ratios.items()
    ]
