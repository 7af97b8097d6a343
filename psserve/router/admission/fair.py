"""Who is next when several groups compete: start-time fair queuing between groups, priority and arrival within one.

    a group's time runs on by cost / weight with every item it takes; the group whose time is earliest is next

A group that waited for nothing begins at the present time: nobody saves up turns while idle. No clock, no event loop.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(order=True, slots=True)
class Entry(Generic[Item]):
    """An item in its group's queue: the highest priority first, of equals the oldest."""

    rank: tuple[int, int]
    item: Item = field(compare=False)
    cost: float = field(compare=False)
    """How much it takes of what the groups share."""
    gone: bool = field(default=False, compare=False)
    """Taken or removed; still in the heap until it comes to the top."""


@dataclass(slots=True)
class _Group(Generic[Item]):
    heap: list[Entry[Item]] = field(default_factory=list)
    size: int = 0
    time: float = 0.0


class FairQueue(Generic[Item]):
    """Queues of named groups. `weights`: share of a group, 1 for those not named."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._groups: dict[str, _Group[Item]] = {}
        self._now = 0.0
        self._arrivals = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def waiting(self, name: str) -> int:
        """Items of one group."""
        group = self._groups.get(name)
        return group.size if group else 0

    def turns(self) -> list[str]:
        """Groups that have items, the next one first."""
        names = [name for name, group in self._groups.items() if group.size]
        return sorted(names, key=self._start)

    def push(self, name: str, item: Item, *, cost: float, priority: int = 0) -> Entry[Item]:
        """Queue `item`. The entry is what `remove` wants."""
        group = self._groups.setdefault(name, _Group())
        self._arrivals += 1
        entry = Entry((-priority, self._arrivals), item, cost)
        heapq.heappush(group.heap, entry)
        group.size += 1
        self._size += 1
        return entry

    def head(self, name: str) -> Entry[Item]:
        """The next item of a group that has one."""
        heap = self._groups[name].heap
        while heap[0].gone:
            heapq.heappop(heap)
        return heap[0]

    def take(self, name: str) -> Item:
        """Its turn: the group's next item, which leaves the queue and is paid for."""
        entry = self.head(name)
        self.remove(name, entry)
        self.pay(name, entry.cost)
        return entry.item

    def pay(self, name: str, cost: float) -> None:
        """The group was served at this cost."""
        group = self._groups.setdefault(name, _Group())
        start = self._start(name)
        self._now = max(self._now, start)
        group.time = start + cost / self._weights.get(name, 1.0)

    def remove(self, name: str, entry: Entry[Item]) -> None:
        """The entry waits no more; nothing happens if it does not wait."""
        if entry.gone:
            return
        entry.gone = True
        group = self._groups[name]
        group.size -= 1
        self._size -= 1
        if not group.size:
            group.heap.clear()

    def _start(self, name: str) -> float:
        return max(self._groups[name].time, self._now)
