"""Fleets over a Ray cluster, seen from outside."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.client import client_of, random_ids
from tests.e2e.fleet import RunningFleet
from tests.e2e.load import Load
from tests.e2e.oracle import Oracle
from tests.e2e.watching import check
from tests.ray_cluster import RayCluster


def fleet_toml(folder: Path, cluster: RayCluster, modules: Sequence[str], lease_secs: float = 600.0) -> Path:
    """A file for `psserve launch --config`."""
    path = folder / "fleet.toml"
    path.write_text(
        f'device = "cpu"\nmodules = {json.dumps(modules)}\n[cluster]\nkind = "ray"\naddress = "{cluster.address}"\n'
        f"private_network = true\nlease_secs = {lease_secs}\n"
    )
    return path


def pid_of(fleet: RunningFleet, server: str) -> int | None:
    """The process that listens at a server's port: whose it is, only its agent knows."""
    port = port_of(fleet, server)
    listening = (one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN)
    return next((one.pid for one in listening if one.laddr.port == port), None)


def port_of(fleet: RunningFleet, server: str) -> int:
    """As it is now: a server that moves gets another one."""
    return next(int(one["port"]) for one in state_of(fleet) if one["name"] == server)


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
