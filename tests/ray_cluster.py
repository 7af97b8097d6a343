"""A Ray cluster on this machine: a head and a node, at different loopback addresses, as `ray start` runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.ports import own_ports
from tests.waiting import until

HEAD, NODE, OTHER = "127.0.0.2", "127.0.0.3", "127.0.0.4"  # Ray takes 127.0.0.1 for "find another one"
_RAY = str(Path(sys.executable).with_name("ray"))
_STORE_BYTES = 80_000_000
_TOKEN = "4d2f" * 16
STARTED_WITHIN_S = 240
DOMAIN = "psserve.io/nvlink"
"""A label that every node has, with its address for a value."""


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
        # By it and by the raylets on a machine, which here are the nodes', Ray would think that this head runs still.
        (self._folder / "ray_current_cluster").unlink(missing_ok=True)
        where = ("--head", "--port", port, "--num-cpus", "0", "--include-dashboard", "false")
        self._start(HEAD, *where, **storage)

    def start_node(self, address: str) -> None:
        where = ("--address", self.address, "--num-cpus", "1", "--labels", f"{DOMAIN}={address}")
        self._start(address, *where, XDG_CACHE_HOME=str(self.cache(address)))

    def cache(self, address: str) -> Path:
        """Where a node keeps what it is sent."""
        return self._folder / f"cache-{address}"

    def kill(self, address: str) -> None:
        """SIGKILL to Ray's own processes at an address; what they have started must end by itself."""
        started = self._processes.pop(address)
        below = psutil.Process(started.pid).children(recursive=True)
        started.kill()
        for process in below:
            if process.name() in ("gcs_server", "raylet"):
                process.kill()
        started.wait()

    def close(self) -> None:
        """End everything, also what was left of what was killed."""
        for process in [*self._processes.values(), *self._left()]:
            process.kill()
        for started in self._processes.values():
            started.wait()

    def _left(self, address: str = "") -> list[psutil.Process]:
        """Processes that work in the cluster's own folder, and at this address, if one is given.

        Those of nodes name the head's address, too: not as their own.
        """
        found = []
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or ())
            is_there = not address or f"node-ip-address={address}" in line.replace("_", "-")
            if is_there and str(self._folder) in line:
                found.append(process)
        return found

    def _start(self, address: str, *arguments: str, **environ: str) -> None:
        command = [_RAY, "start", *arguments, "--node-ip-address", address, "--block", "--disable-usage-stats"]
        command += ["--object-store-memory", str(_STORE_BYTES), "--temp-dir", str(self._folder)]
        command += ["--min-worker-port", "0", "--max-worker-port", "0"]  # any: those of its own range are the tests'
        while not self._has_started(address, command, os.environ | self.env | environ):
            for process in self._left(address):
                process.kill()

    def _has_started(self, address: str, command: Sequence[str], environ: Mapping[str, str]) -> bool:
        """Start Ray. False: it gave up, as it does after 30 s whatever the machine has to do."""
        path = self._folder / f"{address}.log"
        with path.open("wb") as log:
            started = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._processes[address] = started
        try:
            until(lambda: "Ray runtime started" in path.read_text() or started.poll() is not None, STARTED_WITHIN_S)
        finally:
            print(path.read_text())
        if started.poll() is None:
            return True
        assert "timed out during startup" in path.read_text()
        return False


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
