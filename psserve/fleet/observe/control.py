"""Acting on a running fleet from another process."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from psserve.contracts.addresses import is_loopback
from psserve.errors import FleetError
from psserve.fleet.plan import layout
from psserve.fleet.run.protocol import ChangeReply, ChangeRequest, at_path, control_path, unix_socket
from psserve.fleet.run.router_client import RouterClient
from psserve.fleet.run.state import FleetState, running_fleet

_LONGEST_END_S = 60.0
"""For all that a supervisor does to end its fleet, once the router has let requests finish."""


def stop_fleet(zoo: Path, *, now: bool = False) -> FleetState:
    """Stop the zoo's fleet and wait until it has gone. `now` does not let requests finish.

    Raises:
        NotRunning: none runs.
        FleetError: it is another user's, or does not end in time.
    """
    state = running_fleet(zoo)
    supervisor = state.supervisor
    drain_s = 0.0 if now else float(router_config_of(zoo).get("drain_timeout_s", 0.0))  # before it goes with the fleet
    timeout_s = drain_s + _LONGEST_END_S
    try:
        os.kill(supervisor.pid, signal.SIGTERM)
        if now:
            time.sleep(0.3)  # two equal signals at once would count as one
            if supervisor.alive:
                os.kill(supervisor.pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise FleetError(f"the fleet (pid {supervisor.pid}) is another user's") from error
    deadline = time.monotonic() + timeout_s
    while supervisor.alive:
        if time.monotonic() > deadline:
            raise FleetError(f"the fleet (pid {supervisor.pid}) has not ended after {timeout_s:g} s; try --now")
        time.sleep(0.05)
    return state


def change_fleet(zoo: Path, request: ChangeRequest, progress: Callable[[str], None]) -> str:
    """Have the zoo's running fleet make a change, and wait for it. Returns what was done, in one line.

    Whoever stops waiting does not stop the change.

    Raises:
        NotRunning: no fleet runs.
        FleetError: the change failed, and the fleet serves what it served before; or the fleet ended meanwhile.
    """
    state = running_fleet(zoo)
    with unix_socket() as connection:
        try:
            at_path(control_path(Path(state.tmp_dir)), connection.connect)
            connection.sendall(request.line())
            with connection.makefile("rb") as lines:
                for line in lines:
                    reply = ChangeReply.model_validate_json(line)
                    if reply.done is not None:
                        return reply.done
                    if reply.error is not None:
                        raise FleetError(reply.error)
                    progress(reply.progress or "")
        except OSError as error:
            raise FleetError(f"the fleet at {state.url} takes no changes: {error.strerror}; start it again") from error
        except ValidationError as error:
            raise FleetError(f"the fleet at {state.url} runs another version of psserve: start it again") from error
    raise FleetError(f"the fleet at {state.url} ended before the change was made")


def live_state(zoo: Path) -> FleetState:
    """The zoo's fleet, with the states that its router sees at this moment where it answers.

    Raises:
        NotRunning: none runs.
    """
    state = running_fleet(zoo)
    try:
        seen = client_of(zoo, state.url).workers()
    except FleetError:  # what the supervisor wrote last is the best there is
        return state
    servers = tuple(
        server.model_copy(update={"state": seen[server.name].state, "error": seen[server.name].error})
        if server.name in seen and server.may_answer and server.state != "draining"
        else server
        for server in state.servers
    )
    return state.model_copy(update={"servers": servers})


def client_of(zoo: Path, url: str, api_key: str | None = None) -> RouterClient:
    """A client for the running fleet's router at `url`, as `access_of` has it.

    Raises FleetError if its certificate cannot be read.
    """
    access = access_of(zoo, api_key)
    return RouterClient(url, access.api_key, access.certificate)


@dataclass(frozen=True)
class Access:
    """What opens a router."""

    api_key: str | None = None
    certificate: Path | None = None
    """That it must show; None: one that the system trusts, or none over plain HTTP."""


def access_of(zoo: Path, api_key: str | None = None) -> Access:
    """What opens the running fleet's router: the key given, or the fleet's own (for its user alone)."""
    config = router_config_of(zoo)
    certificate = config.get("ssl_certfile")
    return Access(api_key or config.get("operator_key"), Path(certificate) if certificate else None)


def is_at(fleet: FleetState, url: str) -> bool:
    """Whether `url` is the fleet's router, as this machine reaches it."""
    try:
        known, asked = (urlsplit(each.rstrip("/").replace("//localhost", "//127.0.0.1")) for each in (fleet.url, url))
        if (known.scheme, known.port, known.path) != (asked.scheme, asked.port, asked.path):
            return False
    except ValueError:  # a port that is none
        return False
    everywhere = known.hostname in ("0.0.0.0", "::")
    return known.hostname == asked.hostname or (everywhere and is_loopback(asked.hostname or ""))


def router_config_of(zoo: Path) -> Mapping[str, Any]:
    """The running fleet's router configuration, as whichever version wrote it; empty where this user cannot read it."""
    try:
        return dict(json.loads(layout.router_config_path(layout.run_dir(zoo)).read_text()))
    except (OSError, ValueError):  # it has just ended, or is another user's
        return {}


def modules_by_server(zoo: Path) -> dict[str, list[str]]:
    """The running fleet's modules, by what its servers have as their module: its name, or that of the group."""
    found: dict[str, list[str]] = {}
    for module in router_config_of(zoo).get("modules", ()):
        found.setdefault(module.get("group") or module["name"], []).append(module["name"])
    return found
