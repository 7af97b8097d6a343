"""How far long work is, on stderr: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import TextIO

from rich.progress import Progress, ProgressColumn

from psserve.console import console

LINE_EVERY_S = 10.0
"""Seconds between two lines where there is no terminal."""


class Bars(Progress):
    """Rich's bars, drawn where `stream` is a terminal and nowhere else. A context manager: it starts and stops them."""

    def __init__(
        self, stream: TextIO, *columns: ProgressColumn, transient: bool = False, first_line_s: float = LINE_EVERY_S
    ) -> None:
        """`transient`: they are taken away when they stop; `first_line_s`: no line comes sooner than this."""
        super().__init__(*columns, console=console(stream), disable=not stream.isatty(), transient=transient)
        self._stream = stream
        self._next_line = time.monotonic() + first_line_s

    def note(self, text: str) -> None:
        """Say one thing: above the bars, or as a line."""
        if self.disable:
            print(f"psserve: {text}", file=self._stream, flush=True)
        else:
            self.console.print(f"psserve: {text}")

    def line(self, text: str, *, last: bool = False) -> None:
        """Say where things stand, if there are no bars to show it and the time for a line has come. `last`: it has."""
        now = time.monotonic()
        if self.disable and (last or now >= self._next_line):
            self._next_line = now + LINE_EVERY_S
            print(text, file=self._stream, flush=True)
