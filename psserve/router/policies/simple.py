"""Policies that do not look at the prompt: for comparison, and for prompts that share nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence

from psserve.router.policies.base import Choice, Policy, Request


class RoundRobin(Policy):
    """The server that waits longest for its turn."""

    name = "round-robin"

    def _pick(self, request: Request, servers: Sequence[str]) -> Choice:
        return Choice(request, min(servers, key=self.last_turn), "picked", request.tokens)


class LeastLoaded(Policy):
    """The server with the fewest tokens outstanding; of equals, the one that waits longest for its turn."""

    name = "least-loaded"

    def _pick(self, request: Request, servers: Sequence[str]) -> Choice:
        server = min(servers, key=lambda name: (self.outstanding(name), self.last_turn(name)))
        return Choice(request, server, "picked", request.tokens)


class Random(Policy):
    """Any server, each as likely as the others."""

    name = "random"

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        self._random = random.Random(seed)

    def _pick(self, request: Request, servers: Sequence[str]) -> Choice:
        return Choice(request, self._random.choice(servers), "picked", request.tokens)
