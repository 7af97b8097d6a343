"""The doctor's checks of a running fleet: each server's state, a request to each module, KV that was not freed."""

from __future__ import annotations

import time
from pathlib import Path

from psserve.errors import FleetError, NotRunning
from psserve.fleet.client import RouterClient
from psserve.fleet.control import client_of
from psserve.fleet.finding import Finding
from psserve.fleet.overview import FleetOverview, ServerOverview, survey
from psserve.fleet.state import FleetState, running_fleet
from psserve.zoo import Zoo

REQUEST_S = 30.0
"""A module that has not answered one token by then is of no use."""
SETTLE_S = 5.0
"""After a request, both servers free its KV within a step or two; an idle CPU server looks every second or so."""


def find_fleet(zoo: Zoo | None) -> tuple[FleetState | None, list[Finding]]:
    """The zoo's fleet, or what is said where none runs."""
    if zoo is None:
        return None, []
    try:
        return running_fleet(zoo.path), []
    except NotRunning:
        return None, [Finding("fleet", "ok", "none runs; psserve launch starts one")]
    except FleetError as error:
        return None, [Finding("fleet", "fail", str(error))]


def check_fleet(zoo: Path, state: FleetState) -> list[Finding]:
    """Every check of the fleet in `state`. Sends one short request to each module."""
    modules = list(dict.fromkeys(server.module for server in state.servers if server.module is not None))
    client = client_of(zoo, state.url)
    try:
        servers = [check_server(server) for server in survey(zoo).servers]
        requests = [check_request(client, module) for module in modules]
        return [Finding("fleet", "ok", f"runs at {state.url}"), *servers, *requests, check_kv(_settled(zoo))]
    except NotRunning:
        return [Finding("fleet", "fail", f"the fleet at {state.url} ended just now", "psserve logs supervisor")]


def check_server(server: ServerOverview) -> Finding:
    """What state a server is in, and whether it had to be restarted."""
    logs = f"see psserve logs {server.name}"
    if server.state != "ready":
        return Finding(server.name, "fail", f"{server.state}: {server.error or 'no answer yet'}", logs)
    if server.restarts:
        return Finding(server.name, "warn", f"ready, after {server.restarts} restarts", f"{logs} for why it ended")
    return Finding(server.name, "ok", "ready")


def check_request(client: RouterClient, module: str) -> Finding:
    """Ask a module for one token, the way clients do."""
    started = time.monotonic()
    try:
        for _ in client.chat(module, [{"role": "user", "content": "Hello"}], max_tokens=1, timeout_s=REQUEST_S):
            pass
    except FleetError as error:
        return Finding("request", "fail", f"{module}: {error}", f"see psserve status, and psserve logs {module}")
    return Finding("request", "ok", f"{module} answers, in {(time.monotonic() - started) * 1000:.0f} ms")


def check_kv(fleet: FleetOverview) -> Finding:
    """Whether servers without requests hold no KV slots: then nothing leaks."""
    known = [server for server in fleet.servers if server.kv_used_tokens is not None]
    if not known:
        return Finding("KV cache", "warn", "no server says how much it uses", "see psserve status")
    if not all(map(_is_idle, known)):
        return Finding("KV cache", "ok", "in use by requests; look again when the fleet is idle")
    holding = [f"{server.name} holds {server.kv_used_tokens} tokens" for server in known if server.kv_used_tokens]
    if holding:
        advice = "report it with psserve logs; psserve stop and psserve launch free them"
        return Finding("KV cache", "fail", f"{', '.join(holding)} and has no request", advice)
    return Finding("KV cache", "ok", f"all slots of {len(known)} servers are free or hold cache")


def _is_idle(server: ServerOverview) -> bool:
    return not server.running and not server.queued


def _settled(zoo: Path) -> FleetOverview:
    """The fleet once it is idle and holds no KV, or as it is after a while."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        fleet = survey(zoo)
        if not any(server.kv_used_tokens for server in fleet.servers) or time.monotonic() > deadline:
            return fleet
        time.sleep(0.2)
