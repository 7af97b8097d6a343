"""Processes that do not outlive the one that started them (Linux)."""

from __future__ import annotations

import ctypes
import io
import os
import signal
import sys
from typing import Any


class _Lossy(io.FileIO):
    """A file descriptor, unbuffered, whose failing writes are taken for made."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def lose_what_cannot_be_written() -> None:
    """From now on, in this process and in those forked from it. Log handlers made before keep their own streams."""
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(
            _Lossy(fd, "wb", closefd=False), encoding="utf-8", errors="backslashreplace", write_through=True
        )
        for fd in (1, 2)
    )


_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when its parent ends, however it ends.

    A process that was just forked names the `parent` it was forked from, which may have ended already.
    """
    parent = os.getppid() if parent is None else parent
    if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it ended before the call
        os.kill(os.getpid(), signal.SIGKILL)
