"""Saying on stderr how far the reading and writing of large files is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TextIO

from psserve.console import console

SHOW_AFTER_S = 1.0
"""What is done sooner needs no progress."""
LINE_EVERY_S = 10.0
"""Seconds between two lines where there is no terminal."""


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


def reported(blocks: Iterable[bytes], progress: Progress) -> Iterator[bytes]:
    """The blocks, each of which is reported when it is done with."""
    for block in blocks:
        yield block
        progress.advance(len(block))


class StreamProgress(Progress):
    """A bar on a terminal, now and then a line elsewhere; nothing at all for stages that end within a second."""

    def __init__(self, stream: TextIO) -> None:
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bar

        self.stream = stream
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console(stream),
            transient=True,
        )
        self.stage("", 0)

    def stage(self, what: str, size: int) -> None:
        self.hide()
        self.what, self.size, self.done = what, size, 0
        self.last_line = self.start = time.monotonic()

    def advance(self, size: int) -> None:
        self.done += size
        now = time.monotonic()
        if now - self.start < SHOW_AFTER_S:
            return
        if self.stream.isatty():
            self.show()
        elif now - self.last_line >= LINE_EVERY_S:
            self.last_line = now
            rate = self.done / (now - self.start)
            text = f"{self.what}: {self.done / 1e9:.1f} of {self.size / 1e9:.1f} GB, {rate / 1e9:.2f} GB/s"
            print(text, file=self.stream, flush=True)

    def show(self) -> None:
        """Draw the bar."""
        if not self.bar.tasks:
            self.bar.add_task(self.what, total=self.size)
            self.bar.start()
        self.bar.update(self.bar.task_ids[0], completed=self.done)

    def hide(self) -> None:
        """Take the bar away."""
        if self.bar.tasks:  # one that never started would print an empty line when it stops
            self.bar.stop()
        for task in self.bar.task_ids:
            self.bar.remove_task(task)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hide()
