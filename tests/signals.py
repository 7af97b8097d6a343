"""Signals as a test wants them handled."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def handled_as(number: signal.Signals, handler: signal.Handlers) -> Iterator[None]:
    """Whatever this process was started with: nohup ignores SIGHUP."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
