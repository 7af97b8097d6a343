"""Saying on stderr how far the reading and writing of large files is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TextIO

SHOW_AFTER_S = 1.0
"""What is done sooner needs no progress."""


class Progress(AbstractContextManager["Progress"]):
    """What long work on files reports to; this one says nothing. Bytes of one stage at a time."""

    def stage(self, what: str, size: int) -> None:
        """From now on `what` is done, on `size` bytes."""

    def advance(self, size: int) -> None:
        """So many bytes more of the stage are done."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The work is over."""


SILENT = Progress()


def with_progress(blocks: Iterable[bytes], progress: Progress) -> Iterator[bytes]:
    """The blocks, each of which is reported when it is done with."""
    for block in blocks:
        yield block
        progress.advance(len(block))


class StreamProgress(Progress):
    """A bar on a terminal, now and then a line elsewhere; nothing at all for stages that end within a second."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.begin("", 0)

    def stage(self, what: str, size: int) -> None:
        self.hide()
        self.begin(what, size)

    def begin(self, what: str, size: int) -> None:
        """Show nothing of this stage yet."""
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

        from psserve.progress import Bars

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self.bars = Bars(self.stream, *columns, TimeRemainingColumn(), transient=True)
        self.what, self.size, self.done = what, size, 0
        self.start = time.monotonic()

    def advance(self, size: int) -> None:
        self.done += size
        passed = time.monotonic() - self.start
        if passed < SHOW_AFTER_S:
            return
        if not self.bars.tasks:
            self.bars.add_task(self.what, total=self.size)
            self.bars.start()
        self.bars.update(self.bars.task_ids[0], completed=self.done)
        rate = self.done / passed
        self.bars.line(f"{self.what}: {self.done / 1e9:.1f} of {self.size / 1e9:.1f} GB, {rate / 1e9:.2f} GB/s")

    def hide(self) -> None:
        """Take the bar away."""
        if self.bars.tasks:  # one that never started would print an empty line when it stops
            self.bars.stop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hide()
