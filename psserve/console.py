"""The one place where consoles are made: colours and live displays on a terminal, plain text elsewhere.

`rich` reads NO_COLOR, FORCE_COLOR, TERM and COLUMNS by itself. What it does not do: leave the lines of a pipe as long
as they are, and keep what others wrote (names, log lines, answers) from steering the terminal.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

_PIPE_WIDTH = 10_000
"""Columns; wider than any line of ours, so that nothing is folded or cut where no person looks."""
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}


def console(stream: TextIO | None = None) -> Console:
    """A console on `stream` (default: stdout, looked up now). Text is printed as it is: no markup, no highlighting."""
    from rich.console import Console

    stream = stream or sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def show(renderable: RenderableType, out: Console) -> None:
    """Print on `out`; in a pipe, without the spaces that fill up the lines of a table."""
    if out.width != _PIPE_WIDTH:
        out.print(renderable)
        return
    with out.capture() as captured:
        out.print(renderable)
    out.print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], styles: Mapping[str, str] | None = None) -> Table:
    """A table without lines. Columns whose title starts with ">" are numbers, set to the right.

    `styles` maps the text of a cell to how `rich` shows it, e.g. {"ready": "green"}.
    """
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in columns:
        right = title.startswith(">")
        made.add_column(title.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell(text, styles) for text in row))
    return made


def cell(text: str, styles: Mapping[str, str] | None = None) -> Text:
    """One cell: a single line, styled if `styles` has its text."""
    from rich.text import Text

    return Text(" ".join(printable(text).split()), style=(styles or {}).get(text, ""))


def printable(text: str) -> str:
    """`text` without escape sequences and control characters; tabs and ends of lines stay."""
    return _ESCAPES.sub("", text).translate(_CONTROLS)
