"""Reading logs from their end, and what is written to them from then on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from psserve.console import printable
from psserve.errors import FleetError
from psserve.fleet.log_files import LogFile

_BLOCK = 64 * 1024
_POLL_S = 0.2

NamedLine = tuple[str, str]
"""A process, and a line of its log."""


class LogReader:
    """One log. It may be renamed, replaced, cut or removed meanwhile: no line that was written to it is lost."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""
        """The beginning of a line that is not written to its end yet."""

    def last(self, count: int) -> list[str]:
        """The last `count` lines, also one that has no end yet. `new` then goes on behind them."""
        self._open()
        if self._file is None:
            return []
        _seek_ends(self._file, count + 1)  # one more: the first may be the end of a line that began before
        lines = self._read()
        unfinished = [_clean(self._rest)] if self._rest else []
        self._rest = b""
        return [*lines, *unfinished][-count:] if count else []

    def new(self) -> list[str]:
        """Whole lines that were written since the last call."""
        lines = self._read()
        if self._was_replaced():
            lines += self._read()  # what came between the two looks
            if self._rest:
                lines.append(_clean(self._rest))
            self.close()
            self._open()
            lines += self._read()
        return lines

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._rest = None, b""

    def _open(self) -> None:
        with suppress(OSError):
            self._file = self._path.open("rb")

    def _read(self) -> list[str]:
        if self._file is None:
            return []
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        return [_clean(line) for line in lines]

    def _was_replaced(self) -> bool:
        """Whether the path leads to another file than the one that is open, or to less than was read of it."""
        try:
            there = os.stat(self._path)
        except OSError:
            return False  # removed; if it comes again, it is another one
        if self._file is None:
            return True
        ours = os.fstat(self._file.fileno())
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino) or there.st_size < self._file.tell()


def last_lines(logs: Sequence[LogFile], count: int) -> Iterator[NamedLine]:
    """The last lines of each log in turn."""
    for log in logs:
        reader = LogReader(log.path)
        yield from ((log.name, line) for line in reader.last(count))
        reader.close()


def follow(choose: Callable[[], Sequence[LogFile]], count: int) -> Iterator[NamedLine]:
    """The last `count` lines of each log, then all new ones, without end. `choose` is asked anew at every look.

    Logs that come later are read from their beginning; `choose` may then raise FleetError for having none.
    """
    readers: dict[str, LogReader] = {}
    try:
        for log in choose():
            readers[log.name] = LogReader(log.path)
            yield from ((log.name, line) for line in readers[log.name].last(count))
        while True:
            with suppress(FleetError):
                for log in choose():
                    readers.setdefault(log.name, LogReader(log.path))
            for name, reader in readers.items():
                yield from ((name, line) for line in reader.new())
            time.sleep(_POLL_S)
    finally:
        for reader in readers.values():
            reader.close()


def _seek_ends(file: BinaryIO, count: int) -> None:
    """Go to where `count` ends of lines are ahead, maybe within a line; to the beginning if there are less."""
    position = file.seek(0, os.SEEK_END)
    while position and count > 0:
        start = max(0, position - _BLOCK)
        file.seek(start)
        block = file.read(position - start)
        if (found := block.count(b"\n")) >= count:
            before = block.split(b"\n")[: found - count]
            position = start + sum(len(line) + 1 for line in before)
            break
        count, position = count - found, start
    file.seek(position)


def _clean(line: bytes) -> str:
    """What a terminal would show of it: of a progress bar that was drawn again and again, its last state."""
    return printable(line.decode(errors="replace").rstrip("\r").rpartition("\r")[2])
