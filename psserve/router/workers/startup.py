"""A fleet's first start: over once every module has answered, or has had the time that a server may take for it."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from psserve.router.workers.workers import WorkerTable

PATIENCE_S = 600.0
"""What has not answered by then has failed for good."""


class Startup:
    """Tells which modules a router that has just begun still waits for. What happens later does not begin it anew."""

    def __init__(self, table: WorkerTable, clock: Callable[[], float] = monotonic) -> None:
        self._table = table
        self._clock = clock
        self._ends = clock() + PATIENCE_S
        self._is_over = False

    def look(self) -> tuple[list[str], list[str]]:
        """The modules that it waits for, and those that have failed for good: have never answered, and had the time."""
        unanswered = self._table.unanswered()
        self._is_over = self._is_over or not unanswered or self._clock() >= self._ends
        return ([], unanswered) if self._is_over else (unanswered, [])
