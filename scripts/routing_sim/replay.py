"""Replaying a workload on simulated prefill servers: an event queue, one request at a time on each server."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from psserve.router.policies.base import Choice, Policy, Prompt, Request
from psserve.router.policies.blocks import TOKEN_BYTES, blocks_of
from psserve.rule import base_part

from .cache import PageCache
from .workload import Session


@dataclass(frozen=True, kw_only=True)
class Servers:
    """The prefill servers, all alike."""

    count: int = 4
    tokens_per_s: float = 8_000.0
    overhead_s: float = 0.01
    """Of every request, whatever is cached."""
    page_size: int = 16
    kv_tokens: int = 400_000
    """Capacity of each one's cache."""


@dataclass
class _Server:
    cache: PageCache
    queue: deque[_Job] = field(default_factory=deque)
    busy_s: float = 0.0


@dataclass(eq=False)
class _Job:
    session: Session
    number: int
    pages: Sequence[int]
    choice: Choice
    arrived_s: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a replay. Tokens are exact, of whole pages; waits are from arrival to prefilled."""

    requests: int
    prompt_tokens: int
    hit_tokens: int
    """Found in the cache of the server that was chosen."""
    oracle_tokens: int
    """Computed before by any server, and so found by an oracle that knows all, forgets nothing and never waits."""
    busy_s: tuple[float, ...]
    evicted_pages: int
    waits_s: tuple[float, ...]
    makespan_s: float
    outcomes: dict[str, int]

    @property
    def oracle_share(self) -> float:
        return self.hit_tokens / self.oracle_tokens

    @property
    def imbalance(self) -> float:
        """Largest busy time over the mean: 1 is even, the number of servers is all on one."""
        return max(self.busy_s) / (sum(self.busy_s) / len(self.busy_s))


def replay(sessions: Sequence[Session], policy: Policy, servers: Servers, block_pages: int = 1) -> Outcome:
    """Run every session to its end. `policy` sees blocks of `block_pages` pages."""
    return _Replay(sessions, policy, servers, block_pages).run()


class _Replay:
    def __init__(self, sessions: Sequence[Session], policy: Policy, servers: Servers, block_pages: int) -> None:
        self._policy, self._settings = policy, servers
        self._block_tokens = servers.page_size * block_pages
        pages = servers.kv_tokens // servers.page_size
        self._servers = {f"prefill-{index}": _Server(PageCache(pages)) for index in range(servers.count)}
        self._events: list[tuple[float, int, Session, int]] = []  # a session's next request; or a server is done
        self._order = 0
        self._done: list[tuple[float, int, str]] = []
        self._seen: set[int] = set()
        self._totals = dict.fromkeys(("requests", "prompt_tokens", "hit_tokens", "oracle_tokens"), 0)
        self._outcomes: dict[str, int] = {}
        self._waits: list[float] = []
        for session in sessions:
            self._push(session.start_s, session, 0)

    def run(self) -> Outcome:
        now = 0.0
        while self._events or self._done:
            if self._done and (not self._events or self._done[0][0] <= self._events[0][0]):
                now, _, server = heapq.heappop(self._done)
                self._finish(server, now)
            else:
                now, _, session, number = heapq.heappop(self._events)
                self._arrive(session, number, now)
        return Outcome(
            busy_s=tuple(server.busy_s for server in self._servers.values()),
            evicted_pages=sum(server.cache.evicted for server in self._servers.values()),
            waits_s=tuple(self._waits),
            makespan_s=now,
            outcomes=self._outcomes,
            **self._totals,
        )

    def _arrive(self, session: Session, number: int, now: float) -> None:
        data = base_part(session.steps[number].prompt).tobytes()
        prompt = Prompt(blocks_of(data, self._block_tokens * TOKEN_BYTES), len(data) // TOKEN_BYTES, self._block_tokens)
        pages = blocks_of(data, self._settings.page_size * TOKEN_BYTES)
        self._count_oracle(pages)
        choice = self._policy.choose(Request(prompt, session.name), list(self._servers))
        self._outcomes[choice.outcome] = self._outcomes.get(choice.outcome, 0) + 1
        server = self._servers[choice.server]
        server.queue.append(_Job(session, number, pages, choice, now))
        if len(server.queue) == 1:
            self._begin(choice.server, now)

    def _count_oracle(self, pages: Sequence[int]) -> None:
        known = next((count for count, page in enumerate(pages) if page not in self._seen), len(pages))
        self._seen.update(pages[known:])
        self._totals["oracle_tokens"] += known * self._settings.page_size

    def _begin(self, name: str, now: float) -> None:
        """Start the first job of the queue: what it finds in the cache is what is there now."""
        server, settings = self._servers[name], self._settings
        job = server.queue[0]
        hit = server.cache.match(job.pages) * settings.page_size
        tokens = job.choice.request.prompt.tokens
        seconds = settings.overhead_s + (tokens - hit) / settings.tokens_per_s
        server.busy_s += seconds
        self._totals["requests"] += 1
        self._totals["prompt_tokens"] += tokens
        self._totals["hit_tokens"] += hit
        self._order += 1
        heapq.heappush(self._done, (now + seconds, self._order, name))

    def _finish(self, name: str, now: float) -> None:
        server = self._servers[name]
        job = server.queue.popleft()
        server.cache.insert(job.pages)
        self._policy.finish(job.choice, served=True)
        self._waits.append(now - job.arrived_s)
        if server.queue:
            self._begin(name, now)
        if job.number + 1 < len(job.session.steps):
            following = job.session.steps[job.number + 1]
            self._push(now + following.pause_s, job.session, job.number + 1)

    def _push(self, when: float, session: Session, number: int) -> None:
        self._order += 1
        heapq.heappush(self._events, (when, self._order, session, number))
