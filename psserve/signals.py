"""Which signals a process may make its own."""

from __future__ import annotations

import signal


def heeded(*numbers: signal.Signals) -> tuple[signal.Signals, ...]:
    """Those that this process was not started to ignore, as `nohup` (SIGHUP) and `&` in a script (SIGINT) ask for."""
    return tuple(number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN)
