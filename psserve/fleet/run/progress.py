"""Showing on stderr how a fleet comes up: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import TextIO

from rich.live import Live
from rich.table import Table

from psserve.console import console, table
from psserve.fleet.run.member import Member

_STYLE = {"ready": "green", "failed": "red", "down": "red", "restarting": "yellow"}


class StartProgress:
    """Plain lines: one for every change of state, and notes."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._seen: dict[str, str] = {}

    def update(self, members: Sequence[Member]) -> None:
        """Show the members' states."""
        for member in members:
            if self._seen.get(member.spec.name) != member.state:
                self._seen[member.spec.name] = member.state
                after = f" after {member.seconds:.1f} s" if member.state == "ready" else ""
                self.note(f"{member.spec.name}: {member.state}{after}")

    def note(self, text: str) -> None:
        """Say one thing. Where nothing can be written (a full disk, a reader that left) the fleet goes on unheard."""
        with contextlib.suppress(OSError):
            print(f"psserve: {text}", file=self._stream, flush=True)

    def settle(self) -> None:
        """The fleet is up, or will not be: from now on notes only."""


class LiveStartProgress(StartProgress):
    """A table that is redrawn in place until the fleet is up."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._live = Live(console=console(stream), refresh_per_second=4)
        self._settled = False

    def update(self, members: Sequence[Member]) -> None:
        if self._settled:
            super().update(members)
            return
        if not self._live.is_started:
            self._live.start()
        self._live.update(_table(members))
        self._seen = {member.spec.name: member.state for member in members}

    def note(self, text: str) -> None:
        if self._live.is_started:
            self._live.console.print(f"psserve: {text}")
        else:
            super().note(text)

    def settle(self) -> None:
        self._live.stop()
        self._settled = True


def progress_for(stream: TextIO) -> StartProgress:
    """The fitting kind for this stream."""
    return LiveStartProgress(stream) if stream.isatty() else StartProgress(stream)


def _table(members: Sequence[Member]) -> Table:
    rows = [(member.spec.name, member.state, f"{member.seconds:.0f}") for member in members]
    return table(("server", "state", ">seconds"), rows, _STYLE)
