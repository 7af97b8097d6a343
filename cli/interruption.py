"""Being ended by a signal in the middle of something that must not be left as it is."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, and the SIGHUP of a terminal that is closed, raise KeyboardInterrupt meanwhile.

    The first one does, and those that follow are not heard: a terminal sends several, and what the first one makes us
    take back is to be taken back. Signals that are ignored, as under nohup, stay ignored.
    """
    in_main = threading.current_thread() is threading.main_thread()  # others get no signals
    before = {number: signal.getsignal(number) for number in _SIGNALS if in_main}
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    def end(number: int, frame: FrameType | None) -> None:
        for each in heard:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in heard:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])
