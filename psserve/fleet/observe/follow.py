"""Reading logs from their end, and what is written to them from then on."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from psserve.console import printable
from psserve.errors import FleetError
from psserve.fleet.observe.control import modules_by_server
from psserve.fleet.plan import layout
from psserve.fleet.run.state import FleetState, may_live, read_state

SUPERVISOR = "supervisor"
PRELOAD = "preload"
"""The process that servers are forked from, where they are (psserve.fleet.run.preload)."""
_DECODE = re.compile(r"decode-(?P<module>.+)-\d+(-v\d+)?")
"""The name of a decode server (psserve.fleet.plan.layout.decode_name)."""
_BLOCK = 64 * 1024
_POLL_S = 0.2
NamedLine = tuple[str, str]
"""A process, and a line of its log."""


@dataclass(frozen=True)
class LogFile:
    """The log of one process."""

    name: str
    path: Path
    module: str | None = None
    """Of a decode server: its module."""


# --- which logs there are


def choose_logs(zoo: Path, wanted: str | None) -> list[LogFile]:
    """The logs of the process called `wanted`, of all decode servers that serve the module `wanted`, or (None) all.

    Raises:
        FleetError: there are none.
    """
    logs = log_files(zoo)
    chosen = [log for log in logs if wanted is None or wanted in (log.name, log.module)]
    if not chosen:
        group = next((group for group, modules in modules_by_server(zoo).items() if wanted in modules), None)
        chosen = [log for log in logs if log.module is not None and log.module == group]
    if chosen:
        return chosen
    if not logs:
        raise FleetError(f"no logs in {zoo}: this zoo was not served yet (`psserve launch` serves it)")
    if wanted == SUPERVISOR:
        raise FleetError("the supervisor has no log: it writes on the terminal of `psserve launch`, without --detach")
    names = sorted({log.module for log in logs if log.module is not None})
    raise FleetError(
        f"nothing called {wanted!r} has a log; there are: {', '.join(log.name for log in logs)}"
        + (f"; or give a module: {', '.join(names)}" if names else "")
    )


def log_files(zoo: Path) -> list[LogFile]:
    """The logs of the running fleet; if none runs, whatever fleets before it left."""
    run = layout.run_dir(zoo)
    state = None
    with suppress(FleetError):  # a damaged state file: the logs may say how that came
        state = read_state(run)
    if state is not None and state.supervisor.is_here and may_live(run, state):
        return _of_fleet(run, state)
    found = [path for path in (run / "logs").glob("*.log") if path.is_file()]
    logs = [LogFile(path.stem, path, _module_of(path.stem)) for path in found]
    return sorted(logs, key=lambda log: (_place(log.name), log.name))


def _of_fleet(run: Path, state: FleetState) -> list[LogFile]:
    logs = [LogFile(server.name, Path(server.log), server.module) for server in state.servers]
    supervisor, preload = layout.log_path(run, SUPERVISOR), layout.log_path(run, PRELOAD)
    if _writes_to(state.supervisor.pid, supervisor):  # if not, it is an older fleet's: this one was not detached
        logs.append(LogFile(SUPERVISOR, supervisor))
    began = min((server.started for server in state.servers if server.started is not None), default=0.0)
    if preload.exists() and preload.stat().st_mtime >= began:
        logs.append(LogFile(PRELOAD, preload))
    return sorted((log for log in logs if log.path.exists()), key=lambda log: (_place(log.name), log.name))


def _writes_to(pid: int, path: Path) -> bool:
    with suppress(OSError):
        return os.path.samefile(f"/proc/{pid}/fd/2", path)
    return False


def _module_of(name: str) -> str | None:
    match = _DECODE.fullmatch(name)
    return match["module"] if match else None


def _place(name: str) -> int:
    """Supervisor, preload, router, prefill servers, the rest."""
    order = (SUPERVISOR, PRELOAD, "router", "prefill-")
    return next((place for place, start in enumerate(order) if name.startswith(start)), len(order))


# --- reading them


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
    """The text that a terminal would show: of a progress bar that was drawn again and again, its last state."""
    return printable(line.decode(errors="replace").rstrip("\r").rpartition("\r")[2])
