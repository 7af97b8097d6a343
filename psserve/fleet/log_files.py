"""The logs of a fleet, running or not: which there are, and which of them a name means."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from psserve.errors import FleetError
from psserve.fleet import layout
from psserve.fleet.state import FleetState, read_state

SUPERVISOR = "supervisor"
PRELOAD = "preload"
"""The process that servers are forked from, where they are (psserve.fleet.preload)."""
_DECODE = re.compile(r"decode-(?P<module>.+)-\d+(-v\d+)?")
"""The name of a decode server (psserve.fleet.layout.decode_name)."""


@dataclass(frozen=True)
class LogFile:
    """The log of one process."""

    name: str
    path: Path
    module: str | None = None
    """Of a decode server: its module."""


def choose_logs(zoo: Path, wanted: str | None) -> list[LogFile]:
    """The logs of the process called `wanted`, of all decode servers of the module `wanted`, or (None) all.

    Raises:
        FleetError: there are none.
    """
    logs = log_files(zoo)
    chosen = [log for log in logs if wanted is None or wanted in (log.name, log.module)]
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
    """Those of the running fleet; if none runs, whatever fleets before it left."""
    run = layout.run_dir(zoo)
    state = None
    with suppress(FleetError):  # a damaged state file: the logs may say how that came
        state = read_state(run)
    if state is not None and state.supervisor.alive:
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
