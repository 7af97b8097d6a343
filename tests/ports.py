"""Ports for servers that tests start, stop and start again."""

from __future__ import annotations

import fcntl
import itertools
import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from psserve.fleet.plan.ports import is_free

LOWEST = 10_000
"""Below the ports that fleets choose by themselves, and those of outgoing connections."""
RANGES = 100
LENGTH = 100


def own_ports(count: int) -> list[int]:
    """Free loopback ports that nobody else takes: this process has a range of them to itself, and goes through it."""
    return list(itertools.islice(filter(is_free, _own_range()), count))


@cache
def _own_range() -> Iterator[int]:
    """The ports of the first range that no other process has, over and over."""
    folder = Path(tempfile.gettempdir()) / f"psserve-test-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for number in range(RANGES):
        claim = os.open(folder / str(number), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)  # held until we end
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(claim)
        else:
            first = LOWEST + number * LENGTH
            return itertools.cycle(range(first, first + LENGTH))
    raise AssertionError(f"{RANGES} processes test psserve at once")
