"""Signals that a process was started to ignore."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from psserve.signals import heeded


@pytest.fixture
def hangups_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


def test_an_ignored_signal_is_not_heeded(hangups_ignored: None) -> None:
    assert heeded(signal.SIGINT, signal.SIGHUP, signal.SIGTERM) == (signal.SIGINT, signal.SIGTERM)
