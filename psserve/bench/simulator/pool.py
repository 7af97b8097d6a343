"""A server's KV pool: a radix tree of pages, evicted least recently used leaf first, and the pages of running requests.

What is cached of a session is always the beginning of its context, so the tree keeps *runs* of pages: one for its
system prompt (or one for each block that a trace shares), and one for the session's own text below. A request costs the
same however long its prompt is. A tree of pages gives the same hits and evictions (test_pool.py compares them).

    capacity = free pages + pages of the tree + pages that requests own
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

SPARE_ENTRIES = 1024
"""So many entries that are true no more are kept before they are swept out."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """What a session's prompts begin with: runs that other sessions may begin with too, then the session's own."""

    shared: tuple[tuple[Hashable, int], ...]
    """Name and pages (at least one) of each. A name stands for all text up to the run's end."""
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

    context: Prefix
    runs: list[_Run]
    """Of the context, in order; in use by the request."""
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

    def match(self, context: Prefix, pages: int) -> int:
        """How many of the first `pages` of `context` are in the tree."""
        held = 0
        for key, size in context.shared:
            run = self._runs.get(key)
            held += run.pages if run else 0
            if run is None or run.pages < size:
                return min(held, pages)
        branch = self._runs.get(context.branch)
        return min(held + (branch.pages if branch else 0), pages)

    def take(self, context: Prefix, pages: int, needed: int) -> Lease | None:
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
        return Lease(context, runs, hit, missing)

    def store(self, lease: Lease, pages: int) -> None:
        """The first `pages` of the lease's context are computed: those the tree lacks go there, doubles are freed."""
        given = max(0, pages - lease.hit)
        lacking = 0
        for run, size in zip(lease.runs, _sizes(lease.context, pages), strict=True):
            new = max(0, size - run.pages)
            if new and not run.pages and run.parent is not None:
                run.parent.children += 1
            run.pages += new
            lacking += new
        self.cached += lacking
        self._pinned += lacking
        lease.owned -= given
        self.free += given - lacking
        lease.hit = max(lease.hit, pages)

    def release(self, lease: Lease) -> None:
        """The request is over: its own pages are free, and those of the tree may be evicted again."""
        self.free += lease.owned
        lease.owned = 0
        self._unlock(lease.runs, used=True)

    def _lock(self, context: Prefix) -> list[_Run]:
        runs: list[_Run] = []
        for key in (*(key for key, _ in context.shared), context.branch):
            run = self._runs.get(key) or self._add(key, runs[-1] if runs else None)
            self._pinned += 0 if run.locks else run.pages
            run.locks += 1
            runs.append(run)
        return runs

    def _add(self, key: Hashable, parent: _Run | None) -> _Run:
        run = self._runs[key] = _Run(key, parent)
        return run

    def _unlock(self, runs: Sequence[_Run], *, used: bool = False) -> None:
        self._uses += used
        for run in runs:
            run.locks -= 1
            self._pinned -= 0 if run.locks else run.pages
            if used:
                run.used = self._uses
        for run in reversed(runs):  # the last first: whether it stays decides whether the one above may
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


def _sizes(context: Prefix, pages: int) -> Iterator[int]:
    """Of the first `pages` pages, how many each run has."""
    for _, size in context.shared:
        yield min(size, pages)
        pages -= min(size, pages)
    yield pages


def _is_true(entry: tuple[int, int, _Run]) -> bool:
    """Whether the run is still a leaf that was last used then and may be evicted."""
    used, _, run = entry
    return run.used == used and bool(run.pages) and not run.locks and not run.children
