"""How commands print what people read: clean cells, readable sizes and times, a table on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence

import click


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], styles: dict[str, str] | None = None) -> None:
    """A table on a terminal; elsewhere lines of tab-separated cells without a heading, which programs can read.

    `styles` maps a cell's text to how `rich` shows it, e.g. {"naive": "yellow"}.
    """
    clean = [[cell(text) for text in row] for row in rows]
    if not sys.stdout.isatty():
        for row in clean:
            click.echo("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD)
    for row in clean:
        table.add_row(*(Text(text, style=(styles or {}).get(text, "")) for text in row))
    Console().print(table)


def cell(text: str) -> str:
    """`text` on one line and without control characters, which could break a table or steer a terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def size(count: int) -> str:
    """Bytes, readable."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def when(unix_time: float) -> str:
    """A moment in local time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_time))
