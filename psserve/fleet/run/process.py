"""Starting, watching and ending one process, so that none survives us.

Every process leads its own session: the terminal's Ctrl-C reaches only the supervisor, and one signal to the group ends
a server with the children that SGLang spawns. The kernel kills it when the supervisor dies (PR_SET_PDEATHSIG), and
orphans fall back to the supervisor (PR_SET_CHILD_SUBREAPER), which sweeps them. Why a process ended, its log tells.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Protocol

import psutil

from psserve.engine.process import die_with_parent
from psserve.errors import StartError
from psserve.fleet.run.memory import MemoryUse

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_CHILD_SUBREAPER = 36


class Runnable(Protocol):
    """A process as a starter needs to know it; every ProcessSpec is one."""

    @property
    def name(self) -> str: ...
    @property
    def command(self) -> tuple[str, ...]: ...
    @property
    def env(self) -> Mapping[str, str]: ...
    @property
    def log(self) -> Path: ...
    @property
    def host_name(self) -> str: ...


class Handle(Protocol):
    """A started process. All calls return at once; none fails when the process has gone."""

    @property
    def pid(self) -> int | None:
        """Its process id on this machine; None while it waits to be forked, or if it runs on another."""

    @property
    def is_lost(self) -> bool:
        """Whether its host cannot be reached any more: nobody knows how it is, and it counts as gone."""

    @property
    def awaits_files(self) -> bool:
        """Whether its start waits for files that are being sent to its host."""

    def poll(self) -> int | None:
        """Exit code (negative: signal), or None while it runs. Once it is not None, its whole group is dead."""

    def terminate(self) -> None:
        """Ask it to end (SIGTERM to the process alone: it ends its own children)."""

    def kill(self) -> None:
        """End it and all its descendants now (SIGKILL)."""

    def tail(self, lines: int) -> list[str]:
        """The last lines that it has logged itself, and that say something; none if they cannot be read."""

    def memory(self) -> MemoryUse | None:
        """What it was last seen to use on another machine; None: nobody knows, or its pid is one of this machine."""


class Starter(Protocol):
    """A way to start processes."""

    @property
    def lost_hosts(self) -> frozenset[str]:
        """Hosts that cannot be reached now, whether anything was started there or not. For the main thread alone."""

    def start(self, spec: Runnable) -> Handle:
        """Start `spec`, its output appended to `spec.log`.

        The call is made on the supervisor's main thread, never in `asyncio.to_thread`: for PR_SET_PDEATHSIG the parent
        is the thread that forked, and a thread of a pool ends before the supervisor does.

        Raises:
            StartError: the command cannot be run or its log cannot be written; HostLost: where it should run.
        """

    def close(self) -> None:
        """End what still runs of all that was started, and what was needed for it. May take seconds."""


class SubprocessStarter:
    """Runs every command as a fresh child of this process."""

    lost_hosts: frozenset[str] = frozenset()

    def start(self, spec: Runnable) -> Handle:
        log_start = size(spec.log)
        try:
            with open(spec.log, "ab", opener=private) as log:
                child = subprocess.Popen(
                    spec.command,
                    env=dict(spec.env),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    umask=0o077,
                    preexec_fn=partial(die_with_parent, os.getpid()),  # safe beside other threads: it takes no lock
                )
        except OSError as error:
            raise StartError(f"{spec.name} cannot be started: {error}") from error
        return ChildHandle(child, spec.log, log_start)

    def close(self) -> None:
        """Nothing is needed beside its children, and the supervisor sweeps those."""


class ChildHandle:
    """A child of this process that leads its own group."""

    is_lost = False
    awaits_files = False

    def __init__(self, child: subprocess.Popen[bytes], log: Path, log_start: int) -> None:
        self._child = child
        self._log, self._log_start = log, log_start
        self._ended_with: int | None = None

    @property
    def pid(self) -> int:
        return self._child.pid

    def poll(self) -> int | None:
        if self._child.returncode is not None:
            return self._child.returncode
        if self._ended_with is None:
            # Look without reaping: while the zombie holds its pid, the group's number cannot be anyone else's.
            end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if end is None:
                return None
            self._ended_with = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
            signal_group(self.pid, signal.SIGKILL)
        if reap_group(self.pid):
            self._child.returncode = self._ended_with
        return self._child.returncode

    def terminate(self) -> None:
        if self._child.returncode is None and self._ended_with is None:
            os.kill(self.pid, signal.SIGTERM)  # at worst to its zombie, which still holds the pid

    def kill(self) -> None:
        if self._child.returncode is None and self._ended_with is None:
            kill_tree(self.pid)
            signal_group(self.pid, signal.SIGKILL)

    def tail(self, lines: int) -> list[str]:
        return tail(self._log, lines, self._log_start)

    def memory(self) -> None:
        """Its pid tells."""


def become_subreaper() -> None:
    """Make orphaned descendants children of this process instead of init's."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def sweep_descendants() -> int:
    """Kill and reap whatever still descends from this process. Returns how many there were."""
    left = psutil.Process().children(recursive=True)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=5)
    return len(left)


def kill_tree(pid: int) -> None:
    """SIGKILL a process and all its descendants, the process first so that it starts no more."""
    try:
        top = psutil.Process(pid)
        below = top.children(recursive=True)
        for process in (top, *below):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    except psutil.NoSuchProcess:
        pass


def start_ticks(pid: int) -> int | None:
    """When `pid` started, in clock ticks since boot (untouched by clock changes); None if no such process runs.

    Pid and ticks together name a process for good: pids are reused.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


@cache
def boot_id() -> str:
    """A name for this start of this machine, which no other start and no other machine has."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@cache
def pid_namespace() -> int:
    """A number for the pids that this process sees; unique on its machine while any process sees them."""
    return os.stat("/proc/self/ns/pid").st_ino


def private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def reap_group(group: int) -> bool:
    """Reap the dead of this group: the leader, and the orphans that fell to us. Returns whether none is left."""
    with contextlib.suppress(ChildProcessError):
        while os.waitid(os.P_PGID, group, os.WEXITED | os.WNOHANG):
            pass
        return False
    return True


def signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


MOST_LINES = 400
"""Of a log, in which an error is looked for."""
_TAIL_BYTES = 64 * 1024
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ERROR = re.compile(
    r"^(psserve: error: |[\w.]*(Error|Exception|Exit|Missing|Unsupported\w+)\b(: |$))|: error: | ERROR "
)


def size(log: Path) -> int:
    """Bytes that it has now."""
    return log.stat().st_size if log.exists() else 0


def tail(log: Path, lines: int = 12, since: int = 0) -> list[str]:
    """The last lines from byte `since` on that say something; none if the log cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(since, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode(errors="replace").replace("\0", "")  # NULs: holes
    except OSError:
        return []
    said = [_ANSI.sub("", line).rstrip() for line in text.splitlines()]
    return [line for line in said if line][-lines:]


def last_error(log: Path, since: int = 0) -> str:
    """The last line from byte `since` on that names an error, or else the last line."""
    return error_among(tail(log, MOST_LINES, since))


def error_among(lines: Sequence[str]) -> str:
    """The last one that names an error, or else the last one."""
    errors = [line for line in lines if _ERROR.search(line)]
    return (errors or lines or ["it wrote no log"])[-1].strip()
