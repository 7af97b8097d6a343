"""A radix cache page by page, as SGLang keeps one: what the simulator's pool of runs must do the same as."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class _Page:
    parent: int | None
    used: int
    children: int = 0


class PageCache:
    """At most `capacity` pages. A page is named by all tokens up to its end, so its parent is the page before it."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.evicted = 0
        self._pages: dict[int, _Page] = {}
        self._leaves: list[tuple[int, int]] = []  # heap of (used, page); entries that are true no more are skipped
        self._uses = 0

    def __len__(self) -> int:
        return len(self._pages)

    def match(self, pages: Sequence[int]) -> int:
        """How many leading ones of `pages` are cached."""
        return next((count for count, page in enumerate(pages) if page not in self._pages), len(pages))

    def insert(self, pages: Sequence[int]) -> None:
        """Cache a prompt that was computed, making room first. Of one longer than the cache the end is not kept."""
        self._uses += 1
        parent: int | None = None
        for page in pages[: self.capacity]:
            if page in self._pages:
                self._pages[page].used = self._uses
            else:
                self._add(page, parent)
            parent = page
        if parent is not None and not self._pages[parent].children:
            heapq.heappush(self._leaves, (self._uses, parent))

    def _add(self, page: int, parent: int | None) -> None:
        if len(self) == self.capacity:
            self._evict()
        self._pages[page] = _Page(parent, self._uses)
        if parent is not None:
            self._pages[parent].children += 1

    def _evict(self) -> None:
        """Drop the least recently used leaf; the pages of this very use are no candidates (none is in the heap yet)."""
        while True:
            used, name = heapq.heappop(self._leaves)
            page = self._pages.get(name)
            if page is not None and page.used == used and not page.children:
                break
        del self._pages[name]
        self.evicted += 1
        if page.parent is not None:
            parent = self._pages[page.parent]
            parent.children -= 1
            if not parent.children:
                heapq.heappush(self._leaves, (parent.used, page.parent))
