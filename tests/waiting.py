"""Waiting for something that other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 90


def until(holds: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    """Wait; fail when the time is over."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not after {within_s} s: {holds.__qualname__}"
        time.sleep(0.05)
