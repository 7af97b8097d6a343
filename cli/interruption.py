"""Being ended by a signal in the middle of something that must not be left as it is."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from psserve.signals import heeded

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, and the SIGHUP of a terminal that is closed, raise KeyboardInterrupt meanwhile.

    The first one does, and those that follow are not heard: a terminal sends several, and what the first one makes us
    take back is to be taken back. Signals that are ignored, as under nohup, stay ignored.
    """
    in_main = threading.current_thread() is threading.main_thread()  # others get no signals
    before = {number: signal.getsignal(number) for number in heeded(*_SIGNALS) if in_main}

    def end(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
