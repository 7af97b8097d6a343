"""Signals that a process was started to ignore."""

from __future__ import annotations

import signal

from psserve.signals import heeded
from tests.signals import handled_as


def test_an_ignored_signal_is_not_heeded() -> None:
    with handled_as(signal.SIGHUP, signal.SIG_IGN):
        assert heeded(signal.SIGINT, signal.SIGHUP, signal.SIGTERM) == (signal.SIGINT, signal.SIGTERM)
