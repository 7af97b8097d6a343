"""How commands print what people read: clean cells, readable sizes and times, a table on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence

import click

from psserve.console import printable


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], styles: Mapping[str, str] | None = None) -> None:
    """A table on a terminal; elsewhere lines of tab-separated cells without a heading, which programs can read.

    `columns` and `styles` as for `psserve.console.table`.
    """
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(map(one_line, row)))
        return
    from psserve.console import console, table

    made = table(columns, rows, styles)
    made.columns[0].no_wrap = True  # names stay whole on a narrow terminal; all else may be folded
    console().print(made)


def one_line(text: str) -> str:
    """`text` on one line, without what could steer a terminal."""
    return " ".join(printable(text).split())


def size(count: int) -> str:
    """Bytes, readable: 512 bytes, 1.2 MB."""
    from rich.filesize import decimal

    return decimal(count)


def when(unix_time: float) -> str:
    """A moment in local time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_time))
