from __future__ import annotations

import signal

import pytest

from psserve.cli.interruption import ended_as_by_ctrl_c
from tests.signals import handled_as

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_interrupts_and_the_next_is_not_heard(number: signal.Signals) -> None:
    with handled_as(number, signal.SIG_DFL):
        with ended_as_by_ctrl_c():
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_DFL


def test_what_is_ignored_stays_ignored() -> None:
    with handled_as(signal.SIGHUP, signal.SIG_IGN):
        with ended_as_by_ctrl_c():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
