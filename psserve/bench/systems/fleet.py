"""A fleet to measure: `psserve launch` as a user runs it, and the way to its servers."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psserve.errors import StartError

_LAUNCH = "import sys; from psserve.cli.main import main; sys.argv[0] = 'psserve'; main()"
_LOG_LINES = 40


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
    pid: int
    ready_s: float
    config: Mapping[str, Any]

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
        """The process id of each server and the router, by name."""
        state = json.loads((self.zoo / ".run" / "state.json").read_text())
        return {server["name"]: int(server["pid"]) for server in state["servers"]}


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
        yield RunningFleet(zoo, f"http://{config['host']}:{config['port']}", process.pid, ready_s, config)
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)
        process.kill()  # the supervisor's servers end with it
        process.wait()


def _last_lines(zoo: Path) -> dict[str, str]:
    logs = sorted((zoo / ".run" / "logs").glob("*.log"))
    return {log.stem: "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:]) for log in logs}
