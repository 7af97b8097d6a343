"""How a comparison is going, on stderr: two bars on a terminal, a line a run elsewhere."""

from __future__ import annotations

from typing import TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from psserve.bench.compare.plan import Run
from psserve.bench.record import RequestRecord
from psserve.bench.result import Line
from psserve.console import console


class CompareProgress:
    """Shows runs that are done, and the sessions of the run under way (as LoadProgress). A context manager."""

    def __init__(self, stream: TextIO, runs: int, done: int) -> None:
        self._stream = stream
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console(stream), disable=not stream.isatty())
        self._runs, self._done = runs, done
        self._all: TaskID = self._bar.add_task("runs", total=runs, completed=done)
        self._sessions: TaskID = self._bar.add_task("", total=None, visible=False)

    def __enter__(self) -> CompareProgress:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def starts(self, run: Run) -> None:
        """The next run begins."""
        self._bar.reset(self._sessions, description=_title(run), total=None, visible=True)

    def ended(self, run: Run, line: Line) -> None:
        """A run is over, and its line is in the file."""
        self._done += 1
        self._bar.update(self._all, completed=self._done)
        self._bar.update(self._sessions, visible=False)
        p95 = line["psserve"]["sessions"]["p95_session_latency_ms"] / 1000
        figures = f"{line['request_throughput']:.3g} requests/s, 95% of the sessions within {p95:.3g} s"
        failed = line["psserve"]["errors"]["requests"]
        self.note(f"{self._done} of {self._runs}: {_title(run)}: {figures}" + (f", {failed} failed" if failed else ""))

    def note(self, text: str) -> None:
        """Say one thing above the bars."""
        if self._bar.disable:
            print(f"psserve: {text}", file=self._stream, flush=True)
        else:
            self._bar.console.print(f"psserve: {text}")

    def begin(self, sessions: int | None) -> None:
        self._bar.update(self._sessions, total=sessions)

    def request_ended(self, record: RequestRecord) -> None:
        pass

    def session_ended(self) -> None:
        self._bar.advance(self._sessions)


def _title(run: Run) -> str:
    return f"{run.system}, {run.cell.title}, repeat {run.repeat + 1}"
