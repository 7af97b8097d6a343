"""A server's KV pool: a radix tree of pages, evicted least recently used leaf first, and the pages of running requests.

What is cached of a session is always the beginning of its context, so the tree keeps a *run* of pages a session below
a run for its system prompt, and a request costs the same however long its prompt is. A page tree gives the same hits
and evictions (tests/bench/simulator/test_pool.py compares them).

    capacity = free pages + pages of the tree + pages that requests own
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from dataclasses import dataclass

SPARE_ENTRIES = 1024
"""So many entries that are true no more are kept before they are swept out."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a session's prompts begin with: the `trunk_pages` whole pages of its system prompt, then its own."""

    trunk: Hashable
    trunk_pages: int
    branch: Hashable


@dataclass(eq=False, slots=True)
class _Run:
    key: Hashable
    parent: _Run | None
    pages: int = 0
    used: int = 0
    locks: int = 0
    children: int = 0
    """Runs below it that have pages: they can only be used with it, so it stays while there are any."""


@dataclass(eq=False, slots=True)
class Lease:
    """Room for one request: `hit` pages found in the tree and kept there, `owned` pages of its own."""

    context: Context
    hit: int
    owned: int


class Pool:
    """All in pages."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.free = capacity
        self.cached = 0
        """In the tree."""
        self.evicted = 0
        self._runs: dict[Hashable, _Run] = {}
        self._leaves: list[tuple[int, int, _Run]] = []  # heap by last use; entries that are true no more are skipped
        self._pinned = 0  # of the tree: in use by requests
        self._order = 0
        self._uses = 0

    @property
    def owned(self) -> int:
        """By requests."""
        return self.capacity - self.free - self.cached

    def match(self, context: Context, pages: int) -> int:
        """How many of the first `pages` of `context` are in the tree."""
        trunk = self._runs.get(context.trunk)
        if trunk is None:
            return 0
        held = trunk.pages
        if held == context.trunk_pages and (branch := self._runs.get(context.branch)):
            held += branch.pages
        return min(held, pages)

    def take(self, context: Context, pages: int, needed: int) -> Lease | None:
        """Room for `needed` pages, as many as possible of the first `pages` from the tree. None: not now.

        Raises ValueError for more than there can ever be.
        """
        if needed > self.capacity:
            raise ValueError(f"{needed} pages in a pool of {self.capacity}")
        hit = self.match(context, pages)
        missing = needed - hit
        runs = self._lock(context)
        if missing > self.free + self.cached - self._pinned:
            self._unlock(runs)
            return None
        self._evict(missing - self.free)
        self.free -= missing
        return Lease(context, hit, missing)

    def store(self, lease: Lease, pages: int) -> None:
        """The first `pages` of the lease's context are computed: those the tree lacks go there, doubles are freed."""
        context = lease.context
        given = max(0, pages - lease.hit)
        lacking = max(0, pages - self.match(context, pages))
        trunk, branch = self._lock_of(context)
        own = max(0, pages - context.trunk_pages)
        if own and not branch.pages:
            trunk.children += 1
        branch.pages = max(branch.pages, own)
        trunk.pages = max(trunk.pages, min(pages, context.trunk_pages))
        self.cached += lacking
        self._pinned += lacking
        lease.owned -= given
        self.free += given - lacking
        lease.hit = max(lease.hit, pages)

    def release(self, lease: Lease) -> None:
        """The request is over: its own pages are free, and those of the tree may be evicted again."""
        self.free += lease.owned
        lease.owned = 0
        self._unlock(self._lock_of(lease.context), used=True)

    def _lock_of(self, context: Context) -> tuple[_Run, _Run]:
        return self._runs[context.trunk], self._runs[context.branch]

    def _lock(self, context: Context) -> tuple[_Run, _Run]:
        trunk = self._runs.get(context.trunk) or self._add(context.trunk, None)
        branch = self._runs.get(context.branch) or self._add(context.branch, trunk)
        for run in (trunk, branch):
            self._pinned += 0 if run.locks else run.pages
            run.locks += 1
        return trunk, branch

    def _add(self, key: Hashable, parent: _Run | None) -> _Run:
        run = self._runs[key] = _Run(key, parent)
        return run

    def _unlock(self, runs: tuple[_Run, _Run], *, used: bool = False) -> None:
        self._uses += used
        for run in runs:
            run.locks -= 1
            self._pinned -= 0 if run.locks else run.pages
            if used:
                run.used = self._uses
        for run in reversed(runs):  # the branch first: whether it stays decides whether the trunk may
            self._settle(run)

    def _settle(self, run: _Run) -> None:
        """A run that nobody has locked may be evicted if it is a leaf, and is forgotten if it has nothing."""
        if run.locks or run.children:
            return
        if not run.pages:
            self._runs.pop(run.key, None)
            return
        self._order += 1
        heapq.heappush(self._leaves, (run.used, self._order, run))
        if len(self._leaves) > 2 * len(self._runs) + SPARE_ENTRIES:
            self._leaves = [entry for entry in self._leaves if _is_true(entry)]
            heapq.heapify(self._leaves)

    def _evict(self, wanted: int) -> None:
        """Free `wanted` pages, of which there are so many, from the ends of the runs that were used longest ago."""
        while wanted > 0:
            run = self._leaves[0][2]
            if not _is_true(self._leaves[0]):
                heapq.heappop(self._leaves)
                continue
            count = min(wanted, run.pages)
            run.pages -= count
            wanted -= count
            self.cached -= count
            self.free += count
            self.evicted += count
            if not run.pages:
                heapq.heappop(self._leaves)
                self._gone(run)

    def _gone(self, run: _Run) -> None:
        self._runs.pop(run.key)
        if run.parent is not None:
            run.parent.children -= 1
            self._settle(run.parent)


def _is_true(entry: tuple[int, int, _Run]) -> bool:
    """Whether the run is still a leaf that was last used then and may be evicted."""
    used, _, run = entry
    return run.used == used and bool(run.pages) and not run.locks and not run.children
