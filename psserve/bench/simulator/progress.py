"""How simulations are going, on stderr: a bar on a terminal, a line a run elsewhere."""

from __future__ import annotations

from typing import TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from psserve.console import console

EVERY = 50
"""The bar moves after so many sessions."""


class SimulationProgress:
    """A context manager: the bar is taken away at its end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console(stream), disable=not stream.isatty())
        self._task = self._bar.add_task("", total=None)
        self._shown = 0

    def __enter__(self) -> SimulationProgress:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def begin(self, title: str, sessions: int) -> None:
        """A run of so many sessions begins."""
        self._shown = 0
        self._bar.reset(self._task, description=title, total=sessions)

    def ended(self, sessions: int) -> None:
        """So many of its sessions are over."""
        if sessions >= self._shown + EVERY:
            self._shown = sessions
            self._bar.update(self._task, completed=sessions)

    def note(self, text: str) -> None:
        """Say one thing above the bar."""
        if self._bar.disable:
            print(f"psserve: {text}", file=self._stream, flush=True)
        else:
            self._bar.console.print(f"psserve: {text}")
