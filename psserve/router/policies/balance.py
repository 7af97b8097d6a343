"""How far ahead of the others a server is with the work that it was given lately."""

from __future__ import annotations

from collections.abc import Sequence


class RecentWork:
    """Tokens of work given to each server; all are halved whenever they add up to `window` tokens a server.

    So it needs no clock, and remembers about as much as the servers' caches hold, if `window` is one's capacity.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._work: dict[str, float] = {}

    def leads(self, servers: Sequence[str]) -> dict[str, float]:
        """Tokens that each of `servers` is ahead of their mean; 0 if it is behind.

        Servers that are new here begin with the mean of the others: they have nothing to catch up on.
        """
        known = [self._work[name] for name in servers if name in self._work]
        mean = sum(known) / len(known) if known else 0.0
        return {name: max(0.0, self._work.setdefault(name, mean) - mean) for name in servers}

    def add(self, server: str, tokens: int) -> None:
        """`server`, whose lead was asked for, is given `tokens` of work."""
        self._work[server] += tokens
        if sum(self._work.values()) > self._window * len(self._work):
            for name in self._work:
                self._work[name] /= 2

    def forget(self, server: str) -> None:
        self._work.pop(server, None)
