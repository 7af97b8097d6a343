"""The file through which `status`, `stop` and `chat` find a running fleet, and the lock that keeps it the only one."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from psserve.errors import AlreadyRunning, FleetError, NotRunning
from psserve.fleet.plan import layout
from psserve.fleet.plan.host import LOCAL, LOOPBACK
from psserve.fleet.plan.spec import ProcessRole
from psserve.fleet.run.process import boot_id, kill_tree, pid_namespace, start_ticks
from psserve.zoo.disk.storage import write_atomically

ServerStatus = Literal["starting", "ready", "down", "restarting", "lost", "draining", "failed", "stopped"]
BEAT_S = 5.0
"""A supervisor touches its state file as often as this."""
SILENT_S = 60.0
"""So long untouched, the state file of another machine's fleet was left by a dead one."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProcessId(_Record):
    """One process for good: pids are reused, a pid with its start time is not."""

    pid: int
    ticks: int
    boot: str | None = None
    """The start of the machine that it is on. None: an older psserve wrote this, on this machine."""
    namespace: int | None = None
    """That its pid is one of: containers of one machine have their own. None: as above."""
    machine: str | None = None
    """The machine's or container's name, for people: others may have the same one."""

    @classmethod
    def own(cls) -> ProcessId:
        """This process."""
        ticks = start_ticks(os.getpid())
        assert ticks is not None, "this process runs"
        machine = socket.gethostname()
        return cls(pid=os.getpid(), ticks=ticks, boot=boot_id(), namespace=pid_namespace(), machine=machine)

    @property
    def is_of_this_boot(self) -> bool:
        """Whether it is, or was, a process of this machine since its start, in whichever container."""
        return self.boot in (None, boot_id())

    @property
    def is_here(self) -> bool:
        """Whether its pid means the same process to us."""
        return self.is_of_this_boot and self.namespace in (None, pid_namespace())

    @property
    def alive(self) -> bool:
        return self.is_here and start_ticks(self.pid) == self.ticks


class ServerState(_Record):
    """One server, or the router."""

    name: str
    host: str = LOCAL
    """The host that it runs on."""
    role: ProcessRole
    module: str | None = None
    pid: int | None = None
    """None: it does not run, or not on this machine."""
    ticks: int | None = None
    address: str = LOOPBACK
    port: int
    device: str = "cpu"
    """`cpu`, `cuda:1`, or `cuda:0,1` when split over two."""
    tool_call_parser: str | None = None
    """What reads calls of tools in its answers."""
    reasoning_parser: str | None = None
    """What reads thoughts in its answers."""
    state: ServerStatus
    restarts: int = 0
    started: float | None = None
    """Unix time of its latest start."""
    error: str | None = None
    """Why it last ended or is not ready."""
    log: str

    @property
    def may_answer(self) -> bool:
        """Whether it runs, as far as its supervisor knows."""
        if self.host == LOCAL:
            return self.pid is not None
        return self.state not in ("restarting", "lost", "failed", "stopped")


class FleetState(_Record):
    """A running fleet."""

    version: Literal[1, 2, 3] = 3
    """1: of a psserve that knew one machine alone. 2: its file was touched only when it changed."""
    url: str
    zoo: str
    base: str
    supervisor: ProcessId
    ready: bool
    tmp_dir: str
    servers: tuple[ServerState, ...]

    def is_of(self, zoo: Path) -> bool:
        """Whether it tells of a fleet of this zoo. A state of this machine that lies in a copy of a zoo does not.

        Another path to the same folder is the same zoo. A path that leads nowhere proves nothing: the zoo was moved.
        """
        try:
            return os.path.samefile(self.zoo, zoo)
        except (OSError, ValueError):
            return True


def write_state(run: Path, state: FleetState) -> None:
    """Replace the state file in one step (0600).

    Raises:
        OSError: the disk is full or read-only; the old file is untouched.
    """
    document = state.model_dump_json(indent=1) + "\n"
    write_atomically(layout.state_path(run), document.encode(), 0o600, durable=False)


def read_state(run: Path) -> FleetState | None:
    """The state that the file tells, stale or not; None if there is none.

    Raises:
        FleetError: the file is damaged.
    """
    path = layout.state_path(run)
    try:
        return FleetState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FleetError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["loc"] == ("version",) and first["type"] == "literal_error":
            raise FleetError(
                f"{path} is of another version of psserve: end its fleet with that one, or remove it if no fleet runs"
            ) from error
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise FleetError(f"{path} is damaged ({where}: {first['msg']}); remove it if no fleet runs") from error


def remove_state(run: Path) -> None:
    for path in (layout.state_path(run), layout.memory_path(run)):
        path.unlink(missing_ok=True)


def beat(run: Path) -> None:
    """Show machines that share the file system that this fleet lives."""
    with suppress(OSError):
        os.utime(layout.state_path(run))


def may_live(run: Path, state: FleetState) -> bool:
    """Whether the fleet runs here, or may run on another machine or in another container."""
    if not state.supervisor.is_here:  # its path of the zoo may be that of another one here, and nobody touches a copy
        return _touched_ago(run) < SILENT_S
    return _is_of_here(run, state) and state.supervisor.alive


def _is_of_here(run: Path, state: FleetState) -> bool:
    """Whether the pids in it mean to us processes of this zoo's fleet."""
    return state.supervisor.is_here and state.is_of(run.parent)


def running_fleet(zoo: Path) -> FleetState:
    """The fleet that runs for this zoo. A state file that a dead supervisor left is cleaned up.

    Raises:
        NotRunning: there is none.
        FleetError: it seems to run on another machine.
    """
    run = layout.run_dir(zoo)
    state = read_state(run)
    if state is not None and may_live(run, state):
        if state.supervisor.is_here:
            return state
        raise FleetError(_who_runs(run))
    if state is not None:
        with suppress(AlreadyRunning), fleet_lock(run):  # a new supervisor that is just starting cleans up itself
            clean_stale(run)
    raise NotRunning(f"no fleet runs for the zoo {zoo}; start one with `psserve launch`")


def require_none_running(zoo: Path, tell: Callable[[str], None]) -> None:
    """Say early that a fleet runs; only the lock makes sure.

    What another machine's fleet left is watched until it shows life, or may be cleaned up.

    Raises:
        AlreadyRunning: one runs for this zoo.
    """
    run = layout.run_dir(zoo)
    state = _read_or_none(run)
    if state is None:
        return
    if state.supervisor.is_here and may_live(run, state):
        raise AlreadyRunning(_who_runs(run))
    if state.supervisor.is_of_this_boot or (before := _touched_ago(run)) >= SILENT_S:
        return
    tell(
        f"a fleet of this zoo ran on {_machine(state)} {before:.0f} s ago:"
        f" waiting up to {SILENT_S - before:.0f} s to see whether it still does"
    )
    while (now := _touched_ago(run)) < SILENT_S:
        if now < before:
            raise AlreadyRunning(_who_runs(run))
        before = now
        time.sleep(1)


def clean_stale(run: Path) -> list[str]:
    """Kill what a dead supervisor's fleet left running, and remove its files but for logs. Call with the lock held.

    The lock shows that no other fleet runs on this machine. On a shared file system others may not see it.

    Returns:
        Names of the servers that were still alive.

    Raises:
        AlreadyRunning: the fleet may run on another machine.
    """
    state = _read_or_none(run)
    if state is not None and not state.supervisor.is_of_this_boot and may_live(run, state):
        raise AlreadyRunning(_who_runs(run))
    servers = state.servers if state is not None and _is_of_here(run, state) else ()  # else their pids may be anybody's
    left: list[str] = []
    for server in servers:
        if server.host == LOCAL and server.pid and server.ticks is not None and start_ticks(server.pid) == server.ticks:
            kill_tree(server.pid)
            left.append(server.name)
    layout.router_config_path(run).unlink(missing_ok=True)
    for folder in (run / "checkpoints", layout.adapters_dir(run)):
        shutil.rmtree(folder, ignore_errors=True)
    if state is not None:
        own = layout.tmp_dir(run.parent)
        for folder in (own, Path(state.tmp_dir)):
            if folder.name == own.name:  # by another TMPDIR, too; but in a copied zoo the state's is another fleet's
                shutil.rmtree(folder, ignore_errors=True)
    remove_state(run)
    return left


@contextmanager
def fleet_lock(run: Path) -> Iterator[None]:
    """Hold this zoo's only fleet lock. The kernel frees it when the holder dies.

    Raises:
        AlreadyRunning: another supervisor holds it.
    """
    descriptor = os.open(layout.lock_path(run), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(_who_runs(run)) from error
        yield
    finally:
        os.close(descriptor)


def _who_runs(run: Path) -> str:
    state = _read_or_none(run)
    if state is not None and not state.supervisor.is_here:
        path = layout.state_path(run)
        return (
            f"a fleet of the zoo {run.parent} runs on {_machine(state)}, as far as {path} tells, which was touched"
            f" {_touched_ago(run):.0f} s ago: run psserve there (`psserve stop` ends it); if that machine is gone,"
            " remove the file"
        )
    where = f" at {state.url} (pid {state.supervisor.pid})" if state else ""
    return f"a fleet of the zoo {run.parent} runs already{where}; use it, or end it with `psserve stop`"


def _machine(state: FleetState) -> str:
    return state.supervisor.machine or "another machine"


def _touched_ago(run: Path) -> float:
    """Seconds since the state file was touched, infinite if it has gone: by the clock of its file system."""
    try:
        with layout.state_path(run).open("rb") as file:  # NFS asks the server anew for what is opened
            touched = os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return math.inf
    try:
        with tempfile.TemporaryFile(dir=run) as probe:
            os.utime(probe.fileno())
            return os.fstat(probe.fileno()).st_mtime - touched
    except OSError:  # read-only, or full
        return time.time() - touched


def _read_or_none(run: Path) -> FleetState | None:
    """The state, for callers to whom a damaged file is the same as none."""
    with suppress(FleetError):
        return read_state(run)
    return None
