"""How a run is going, on stderr: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from typing import TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from psserve.bench.record import RequestRecord
from psserve.console import console

LINE_EVERY_S = 10.0


class ShownProgress:
    """A LoadProgress for people. A context manager: the bar is taken away at its end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar = Progress(
            TextColumn("sessions"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console(stream),
            disable=not stream.isatty(),
        )
        self._task = self._bar.add_task("", total=None)
        self._total: int | None = None
        self._sessions = self._requests = self._failed = 0
        self._told = time.monotonic()

    def __enter__(self) -> ShownProgress:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def begin(self, sessions: int | None) -> None:
        self._total = sessions
        self._bar.update(self._task, total=sessions)

    def request_ended(self, record: RequestRecord) -> None:
        self._requests += 1
        self._failed += record.error is not None
        self._show()

    def session_ended(self) -> None:
        self._sessions += 1
        self._show()

    def note(self, text: str) -> None:
        """Say one thing above the bar."""
        if self._bar.disable:
            print(f"psserve: {text}", file=self._stream, flush=True)
        else:
            self._bar.console.print(f"psserve: {text}")

    def _show(self) -> None:
        text = f"{self._requests} requests, {self._failed} failed"
        if not self._bar.disable:
            self._bar.update(self._task, completed=self._sessions, description=text)
        elif time.monotonic() - self._told >= LINE_EVERY_S:
            self._told = time.monotonic()
            of = "" if self._total is None else f" of {self._total}"
            self.note(f"{self._sessions}{of} sessions, {text}")
