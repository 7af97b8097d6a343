"""How a training takes signals."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from psserve.training.progress import StopOnSignal


@pytest.fixture
def interrupts_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_training_leaves_an_ignored_signal_alone(interrupts_ignored: None) -> None:
    nothing: Any = None
    stopping, before = StopOnSignal(), signal.getsignal(signal.SIGTERM)
    stopping.on_train_begin(nothing, nothing, nothing)
    try:
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == stopping.stop
    finally:
        stopping.restore()
    assert signal.getsignal(signal.SIGTERM) == before
