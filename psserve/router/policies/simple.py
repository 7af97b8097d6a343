"""Policies that do not look at the prompt: for comparison, and for prompts that share nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence

from blake3 import blake3

from psserve.router.policies.base import Choice, Policy, Request

OVERLOAD_FACTOR = 1.25


class SessionAffinity(Policy):
    """The session's own server by rendezvous hashing; the least loaded one while that has too much to do.

    Too much is more than `floor` tokens *and* more than OVERLOAD_FACTOR times the mean of all, this request included.
    The floor keeps sessions together on idle servers, where one request is more than its share already.
    """

    name = "session"

    def __init__(self, floor: int) -> None:
        super().__init__()
        self._floor = floor

    def _pick(self, request: Request, servers: Sequence[str]) -> Choice:
        own = rendezvous(request.session, servers)
        if not self._is_overloaded(own, request, servers):
            return Choice(request, own, "affinity", request.tokens)
        ranked = min(servers, key=lambda name: (self.outstanding(name), self.last_turn(name)))
        return Choice(request, ranked, "overloaded" if ranked != own else "affinity", request.tokens)

    def _is_overloaded(self, server: str, request: Request, servers: Sequence[str]) -> bool:
        load = self.outstanding(server) + request.tokens
        total = sum(map(self.outstanding, servers)) + request.tokens
        return load > self._floor and load > OVERLOAD_FACTOR * total / len(servers)


def rendezvous(key: str, servers: Sequence[str]) -> str:
    """The server of `key`, the same for all who ask, in whatever order they know `servers`.

    One server more or less moves only the keys that it gets or had (highest random weight).
    """
    prefix = key.encode(errors="replace") + b"\0"
    return max(servers, key=lambda name: (blake3(prefix + name.encode()).digest(8), name))


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
