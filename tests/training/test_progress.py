"""How a training takes signals."""

from __future__ import annotations

import signal
from typing import Any

from psserve.training.progress import StopOnSignal
from tests.signals import handled_as


def test_a_training_leaves_an_ignored_signal_alone() -> None:
    nothing: Any = None
    stopping, before = StopOnSignal(), signal.getsignal(signal.SIGTERM)
    with handled_as(signal.SIGINT, signal.SIG_IGN):
        stopping.on_train_begin(nothing, nothing, nothing)
        try:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) == stopping.stop
        finally:
            stopping.restore()
    assert signal.getsignal(signal.SIGTERM) == before
