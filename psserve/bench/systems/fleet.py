"""psserve itself as a system: `psserve launch` as a user runs it, and the way to its servers."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w

from psserve.bench.systems.counters import Server
from psserve.bench.systems.system import RunningSystem, SystemSpec, Target, warm_up
from psserve.errors import StartError
from psserve.fleet.options.options import TransferChoice
from psserve.fleet.plan.devices import choose, detect
from psserve.fleet.plan.fitting import pools
from psserve.fleet.plan.settings import pool_for
from psserve.zoo import Zoo

ONE_POOL = "one-pool"
"""The system whose decode servers read prompts in the prefill servers' pools."""
_LAUNCH = "import sys; from psserve.cli.main import main; sys.argv[0] = 'psserve'; main()"
_LOG_LINES = 40


@contextlib.contextmanager
def shared_system(name: str, spec: SystemSpec, note: Callable[[str], None]) -> Iterator[RunningSystem]:
    """Launch the zoo's fleet, with one KV pool or without, and stop it at the end. Raises StartError."""
    spec = replace(spec, transfer=_transfer(name, spec))
    with tempfile.TemporaryDirectory(prefix="psserve-bench-") as folder:
        config = Path(folder) / "fleet.toml"
        settings = fleet_settings(spec, decode_servers(spec))
        config.write_text(tomli_w.dumps(settings))
        note("psserve launch")
        arguments = ["--config", str(config), "--", *spec.engine_args()]
        with launched(spec.zoo, arguments, within_s=spec.start_timeout_s) as fleet:
            endpoints = dict.fromkeys(spec.modules, fleet.url)
            warm_up(endpoints, spec.start_timeout_s, note)
            servers = tuple(
                Server(worker["name"], fleet.worker_url(worker["name"]), prefills=worker["role"] == "prefill")
                for worker in fleet.config["workers"]
            )
            target = Target(urls=endpoints, servers=servers, pids=fleet.pids(), servers_key=fleet.key)
            yield RunningSystem(target, {"fleet": settings}, spec.exports)


def _transfer(name: str, spec: SystemSpec) -> TransferChoice:
    if name == ONE_POOL:
        return "shared"
    return "nixl" if spec.transfer == "auto" else spec.transfer


def decode_servers(spec: SystemSpec) -> int:
    """How many decode servers the modules have: one each, but adapters share one. Raises ZooError."""
    zoo = Zoo.open(spec.zoo)
    shared = sum(zoo.module(name).shares_servers for name in spec.modules)
    return len(spec.modules) - shared + min(shared, 1)


def fleet_settings(spec: SystemSpec, decode_servers: int) -> dict[str, Any]:
    """The fleet.toml of the system: its KV cache is shared out as a fleet shares out a device's."""
    options = spec.fleet_options().model_dump(mode="json", exclude_unset=True, exclude_none=True)
    machine = detect()
    device = choose(machine, spec.device)
    longest = 0 if spec.context_length is None else pool_for(spec.context_length, spec.page_size)
    one_pool = spec.transfer == "shared"
    sizes = pools(spec.kv_tokens, spec.prefill_servers, decode_servers, longest, one_pool=one_pool)
    prefill = {"replicas": spec.prefill_servers, "kv_tokens": sizes["prefill"]}
    decode = {"kv_tokens": sizes["decode"]}
    return {
        **options,
        "prefill": {**prefill, "env": spec.server_env(device, machine, spec.prefill_servers)},
        "decode": {**decode, "env": spec.server_env(device, machine, decode_servers)},
    }


class LaunchFailed(StartError):
    """The fleet did not become ready. `logs` holds the last lines of each log, by server."""

    def __init__(self, logs: dict[str, str]) -> None:
        super().__init__("psserve launch did not become ready; its servers' last lines are in the result")
        self.logs = logs


@dataclass(frozen=True)
class RunningFleet:
    """A fleet that is ready. `config` is its router's configuration, with the key that its servers require."""

    zoo: Path
    url: str
    supervisor: int
    """Its process id."""
    config: Mapping[str, Any]
    ready_s: float = 0.0
    """From its start until it was ready; 0 where nobody timed it."""

    @property
    def key(self) -> str:
        """What servers require of the router, and of us in its place."""
        return str(self.config["worker_key"])

    def worker(self, name: str) -> Mapping[str, Any]:
        """The router's entry of a server: host, port, bootstrap_port, module."""
        return next(worker for worker in self.config["workers"] if worker["name"] == name)

    def worker_url(self, name: str) -> str:
        worker = self.worker(name)
        return f"http://{worker['host']}:{worker['port']}"

    def pids(self) -> dict[str, int]:
        """The process ids of the servers that run, and of the router, by name."""
        state = json.loads((self.zoo / ".run" / "state.json").read_text())
        return {server["name"]: int(server["pid"]) for server in state["servers"] if server["pid"] is not None}


@contextlib.contextmanager
def launched(zoo: Path, arguments: Sequence[str], within_s: float = 300.0) -> Iterator[RunningFleet]:
    """Launch a fleet of `zoo` on a free port, time it until it is ready, and stop it at the end.

    Raises LaunchFailed.
    """
    # -P: the current folder may be a checkout, whose psserve/ has no cli in it.
    command = [sys.executable, "-P", "-c", _LAUNCH, "launch", "--zoo", str(zoo), "--port", "0"]
    command += ["--start-timeout-secs", str(within_s), *arguments]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None  # it is a pipe
        if "ready at" not in process.stdout.readline():
            raise LaunchFailed(_last_lines(zoo))
        ready_s = time.monotonic() - started
        config = json.loads((zoo / ".run" / "router.json").read_text())
        yield RunningFleet(zoo, f"http://{config['host']}:{config['port']}", process.pid, config, ready_s)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)
        process.kill()  # the supervisor's servers end with it
        process.wait()


def _last_lines(zoo: Path) -> dict[str, str]:
    logs = sorted((zoo / ".run" / "logs").glob("*.log"))
    return {log.stem: "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:]) for log in logs}
