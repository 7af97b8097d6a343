"""Fleets over a Ray cluster, seen from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from tests.e2e.client import client_of, random_ids
from tests.e2e.fleet import READY_WITHIN_S, RunningFleet
from tests.e2e.load import Load
from tests.e2e.oracle import Oracle
from tests.e2e.watching import await_whole, check, family
from tests.ray_cluster import DOMAIN, RayCluster
from tests.waiting import until


def fleet_toml(
    folder: Path,
    cluster: RayCluster,
    modules: Sequence[str],
    *,
    files: str = "shared",
    lease_secs: float = 600.0,
    labels: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """A file for `psserve launch --config`. `labels`: table -> the node that its servers must be on."""
    tables = "".join(f'[{table}]\nlabels = {{"{DOMAIN}" = "{node}"}}\n' for table, node in labels.items())
    path = folder / "fleet.toml"
    path.write_text(
        f'device = "cpu"\nmodules = {json.dumps(modules)}\n[cluster]\nkind = "ray"\naddress = "{cluster.address}"\n'
        f'private_network = true\nfiles = "{files}"\nlease_secs = {lease_secs}\n{tables}'
    )
    return path


def pid_of(fleet: RunningFleet, server: str) -> int | None:
    """The process that listens at a server's port: whose it is, only its agent knows."""
    at = address_of(fleet, server)
    listening = (one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN)
    return next((one.pid for one in listening if (one.laddr.ip, one.laddr.port) == at), None)


def processes_of(fleet: RunningFleet, *servers: str) -> list[psutil.Process]:
    """All processes of these servers, which must run."""
    pids = [pid_of(fleet, server) for server in servers]
    assert None not in pids
    return [process for pid in pids if pid is not None for process in family(pid)]


def agent_of(fleet: RunningFleet, server: str) -> psutil.Process:
    """psserve's agent on the machine of a server that runs."""
    pid = pid_of(fleet, server)
    return next(process for process in psutil.Process(pid).parents() if process.name() == "ray::Agent")


def check_restarts(fleet: RunningFleet, server: str) -> None:
    """A server that is killed comes back: somebody sees its end, and is obeyed."""
    before = pid_of(fleet, server)
    assert before is not None
    os.kill(before, signal.SIGKILL)
    until(lambda: pid_of(fleet, server) not in (None, before), READY_WITHIN_S)
    await_whole(fleet)


def bridge_of(fleet: RunningFleet) -> psutil.Process | None:
    """The supervisor's process that is connected to Ray now."""
    for child in psutil.Process(fleet.supervisor).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it ends just now
            if "psserve.fleet.ray.bridge" in child.cmdline():
                return child
    return None


def address_of(fleet: RunningFleet, server: str) -> tuple[str, int]:
    """Address and port as they are now: a server that moves gets others."""
    return next((one["address"], int(one["port"])) for one in state_of(fleet) if one["name"] == server)


def state_of(fleet: RunningFleet) -> list[dict[str, Any]]:
    """The servers, as the supervisor says."""
    return list(json.loads((fleet.zoo / ".run" / "state.json").read_text())["servers"])


def places(fleet: RunningFleet) -> dict[str, str]:
    """Server -> the host that it runs on."""
    return {one["name"]: one["host"] for one in state_of(fleet)}


async def served_meanwhile(fleet: RunningFleet, modules: Sequence[str], what: Callable[[], Any]) -> set[int]:
    """The status codes of requests that are made while something happens."""
    prompts = [random_ids(random.Random(i), 30) for i in range(5)]
    async with client_of(fleet.url) as client, Load(client, prompts, think_s=0.2) as load:
        load.start(modules, 4)
        await asyncio.to_thread(what)
        load.stop(*modules)
    return {outcome.status for outcome in load.outcomes}


def check_exact(fleet: RunningFleet, oracle: Oracle, modules: Sequence[str], seed: int) -> None:
    """Ask for answers to new prompts, and compare them."""
    rng = random.Random(seed)
    for module in modules:
        for length in (5, 40, 150):
            check(fleet, oracle, module, random_ids(rng, length))
