"""What a server prints is lost, and nothing else, where it cannot be written: on a full disk, or to a reader that left.

SGLang prints at start and while it serves, and a `print` that fails would end the process.
"""

from __future__ import annotations

import io
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
