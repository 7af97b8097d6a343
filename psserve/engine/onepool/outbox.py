"""What a decode server tells prefill servers, in order, each once the GPU has done what it tells of."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from psserve.engine.onepool.memory import Done


class Outbox:
    """For the scheduler's thread, which looks again in each turn."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Done | None, Callable[[], None]]] = deque()

    def put(self, say: Callable[[], None], once: Done | None = None) -> None:
        """Call `say` after what was put before, and once that is done (None: it is)."""
        self._waiting.append((once, say))
        self.look()

    def look(self) -> None:
        """Say what can be said by now."""
        while self._waiting and _is_done(self._waiting[0][0]):
            self._waiting.popleft()[1]()


def _is_done(once: Done | None) -> bool:
    return once is None or once.query()


OUTBOX = Outbox()  # a process has one scheduler
