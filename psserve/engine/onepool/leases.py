"""Which of a prefill server's pages are lent, and to whom.

What comes back, and that a reader is gone, is heard by the thread of the sockets. The scheduler's thread, which alone
may touch the radix tree, looks here once a turn and unlocks.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Lease:
    """Pages that a reader attends to in place."""

    room: int
    reader: object
    lock: object
    """What keeps the path to its last page in the radix tree."""
    tokens: int
    since: float
    """By the machine's monotonic clock."""


class LeaseTable:
    """All leases of one prefill server. Only `give_back` and `end_reader` may be called from another thread."""

    def __init__(self) -> None:
        self._leases: dict[int, Lease] = {}
        self._returned: deque[int] = deque()
        self._ended: deque[object] = deque()
        self._over: set[int] = set()
        """Rooms that were given back here, and may not have been to all parts of the server."""

    def __len__(self) -> int:
        return len(self._leases)

    @property
    def tokens(self) -> int:
        """Tokens lent, those of pages that several read counted for each."""
        return sum(lease.tokens for lease in self._leases.values())

    def of(self, room: int) -> Lease | None:
        """The lease of a room, if it has one."""
        return self._leases.get(room)

    def lend(self, lease: Lease) -> None:
        """Note a lease, for which its node was locked."""
        assert lease.room not in self._leases, f"room {lease.room} has a lease already"
        self._leases[lease.room] = lease

    def give_back(self, room: int) -> None:
        """A reader reads a room's pages no more. A room without a lease is passed over."""
        self._returned.append(room)

    def end_reader(self, reader: object) -> None:
        """A reader is gone, and with it all that it read."""
        self._ended.append(reader)

    def take_back(self, agreed: Callable[[list[bool]], list[bool]] = list) -> list[Lease]:
        """Forget and return the leases that ended, each once: their locks are to be taken away.

        `agreed`: which of all leases, in the order in which they were lent, have ended for each part of a server that
        is split (tp), given those that have for this one. Parts that would not unlock in the same turn would evict
        different pages.
        """
        while self._returned:
            self._over.add(self._returned.popleft())
        while self._ended:
            reader = self._ended.popleft()
            self._over |= {room for room, lease in self._leases.items() if lease.reader is reader}
        self._over &= self._leases.keys()
        if not self._leases:
            return []
        ended = agreed([room in self._over for room in self._leases])
        rooms = [room for room, is_over in zip(self._leases, ended, strict=True) if is_over]
        return [self._leases.pop(room) for room in rooms]

    def oldest_s(self, now: float) -> float:
        """The age of the oldest lease; 0 where there is none."""
        return max((now - lease.since for lease in self._leases.values()), default=0.0)


class Waker:
    """Ends the sleep of a scheduler that has nothing to run, so that it takes back what has come back."""

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def __del__(self) -> None:
        os.close(self._event)

    def fileno(self) -> int:
        """What can be read once `wake` was called."""
        return self._event

    def wake(self) -> None:
        """Be readable until `clear`. May be called from another thread."""
        os.eventfd_write(self._event, 1)

    def clear(self) -> None:
        """Be not readable any more."""
        with suppress(BlockingIOError):  # nobody called
            os.eventfd_read(self._event)
