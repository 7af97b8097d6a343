"""A Ray cluster on this machine: a head and a node, at different loopback addresses, as `ray start` runs them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.client import client_of, random_ids
from tests.e2e.fleet import RunningFleet
from tests.e2e.load import Load
from tests.e2e.oracle import Oracle
from tests.e2e.watching import check, family
from tests.ports import own_ports
from tests.waiting import until

HEAD, NODE, OTHER = "127.0.0.2", "127.0.0.3", "127.0.0.4"  # Ray takes 127.0.0.1 for "find another one"
_RAY = str(Path(sys.executable).with_name("ray"))
_STORE_BYTES = 80_000_000
_TOKEN = "4d2f" * 16


class RayCluster:
    """The machine at `HEAD` runs no servers, so that it may go; the others have a CPU to offer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.address = f"{HEAD}:{own_ports(1)[0]}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def env(self) -> dict[str, str]:
        """What docs/cluster.md says of `ray start`, for psserve too."""
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": _TOKEN,
            "RAY_memory_monitor_refresh_ms": "0",
            "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
        }

    def start_head(self) -> None:
        storage = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(self._folder / "gcs")}
        port = self.address.partition(":")[2]
        where = ("--head", "--port", port, "--num-cpus", "0", "--include-dashboard", "false")
        self._start(HEAD, *where, **storage)

    def start_node(self, address: str) -> None:
        self._start(address, "--address", self.address, "--num-cpus", "1")

    def kill(self, address: str) -> None:
        """SIGKILL to Ray's own processes at an address; what they have started must end by itself."""
        started = self._processes.pop(address)
        own = [one for one in family(started.pid) if one.name() in ("gcs_server", "raylet")]
        for process in (psutil.Process(started.pid), *own):
            process.kill()
        started.wait()

    def close(self) -> None:
        """End everything, also what was left of what was killed."""
        for process in [*self._processes.values(), *self._left()]:
            process.kill()
        for started in self._processes.values():
            started.wait()

    def _left(self) -> list[psutil.Process]:
        """Processes that work in the cluster's own folder."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if any(str(self._folder) in word for word in process.info["cmdline"] or ()):
                found.append(process)
        return found

    def _start(self, address: str, *arguments: str, **environ: str) -> None:
        command = [_RAY, "start", *arguments, "--node-ip-address", address, "--block", "--disable-usage-stats"]
        command += ["--object-store-memory", str(_STORE_BYTES), "--temp-dir", str(self._folder)]
        command += ["--min-worker-port", "0", "--max-worker-port", "0"]  # any: those of its own range are the tests'
        path = self._folder / f"{address}.log"
        with path.open("wb") as log:
            self._processes[address] = subprocess.Popen(
                command, env=os.environ | self.env | environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(lambda: "Ray runtime started" in path.read_text())


@contextmanager
def ray_cluster(*nodes: str) -> Iterator[RayCluster]:
    """A running cluster: a head, and nodes at these addresses. psserve in this process's environment gets in."""
    folder = Path(tempfile.mkdtemp(prefix="psray-"))  # short: sockets are in it
    cluster = RayCluster(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.env.items():
            patch.setenv(name, value)
        try:
            cluster.start_head()
            for address in nodes:
                cluster.start_node(address)
            yield cluster
        finally:
            cluster.close()
            shutil.rmtree(folder, ignore_errors=True)


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
