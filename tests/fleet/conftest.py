"""A real supervisor over fake servers, each in processes of their own."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from psserve.fleet.observe.control import change_fleet
from psserve.fleet.plan import layout
from psserve.fleet.run.protocol import ChangeCommand, ChangeRequest
from psserve.fleet.run.router_client import RouterClient
from psserve.fleet.run.state import FleetState, read_state
from tests.ports import own_ports
from tests.waiting import until

WAIT_S = 60.0
"""Only bounds a test that hangs."""


SPARE_PORTS = 16
"""For servers that join a fleet in a test."""


class FakeFleet:
    """One supervisor process and what it started."""

    def __init__(self, zoo: Path) -> None:
        self.zoo = zoo
        self.run = zoo / ".run"
        self.tmp = layout.tmp_dir(zoo)
        self.ports: list[int] = []
        self.supervisor: subprocess.Popen[str] | None = None
        self.seen: set[int] = set()

    def launch(
        self,
        servers: dict[str, list[str]],
        *extra: str,
        restarts: int = 5,
        start_timeout_s: float = 60,
        drain_s: float = 2,
        stuck_s: float = 300,
        watch: bool = False,
        adapters: Sequence[str] = (),
        checkpoints: Sequence[str] = (),
        ignored: Sequence[signal.Signals] = (),
    ) -> None:
        """`adapters`: modules that the servers called decode-adapters-N share; `checkpoints`: see plan_of.

        `ignored`: signals, from the start.
        """
        self.ports = self.ports or own_ports(1 + len(servers))
        plan = self.zoo / "plan.json"
        given: dict[str, Any] = {"zoo": str(self.zoo), "servers": servers, "ports": self.ports, "tmp": str(self.tmp)}
        given |= {"adapters": adapters, "checkpoints": checkpoints, "spare_ports": own_ports(SPARE_PORTS)}
        limits = {"restarts": restarts, "start_timeout_s": start_timeout_s, "drain_s": drain_s, "stuck_s": stuck_s}
        plan.write_text(json.dumps(given | limits | {"watch": watch, "ignored": ignored}))
        script = Path(__file__).with_name("run_fleet.py")
        self.supervisor = subprocess.Popen(
            [sys.executable, str(script), str(plan), *extra], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def ready(self) -> None:
        """Wait for the ready line."""
        assert self.supervisor is not None
        assert self.supervisor.stdout is not None
        line = self.supervisor.stdout.readline()
        assert line == f"ready http://127.0.0.1:{self.ports[0]}\n", self.output()
        self.processes()

    def output(self) -> str:
        """What it wrote on stderr, once it has ended."""
        assert self.supervisor is not None
        return self.supervisor.communicate(timeout=WAIT_S)[1]

    def state(self) -> FleetState:
        state = read_state(self.run)
        assert state is not None
        return state

    def pid(self, name: str) -> int:
        pid = next(server.pid for server in self.state().servers if server.name == name)
        assert pid is not None
        return pid

    def processes(self) -> set[int]:
        """Note and return every process of the fleet but the supervisor."""
        return self.note_children(psutil.Process(self.state().supervisor.pid))

    def note_children(self, supervisor: psutil.Process) -> set[int]:
        now = {process.pid for process in supervisor.children(recursive=True)}
        self.seen |= now
        return now

    def until(self, condition: Callable[[], bool]) -> None:
        until(condition, WAIT_S)

    def offer(self, **modules: dict[str, Any]) -> None:
        """What the zoo has from now on."""
        new = self.zoo / "offers.new"
        new.write_text(json.dumps(modules))
        new.replace(self.zoo / "offers.json")

    def ask(self, command: ChangeCommand, module: str | None = None, **fields: Any) -> tuple[str, list[str]]:
        """Have the fleet make a change. Returns what was done and what was told meanwhile."""
        told: list[str] = []
        return change_fleet(self.zoo, ChangeRequest(command=command, module=module, **fields), told.append), told

    def served(self) -> dict[str, set[str]]:
        """What the router follows: its modules, and its servers that answer."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[0]}/") as answer:
            view = json.load(answer)
        ready = {worker["name"] for worker in view["workers"] if worker["state"] == "ready"}
        return {"modules": {module["name"] for module in view["modules"]}, "servers": ready}

    def names(self) -> list[str]:
        """The servers in the state file."""
        return [server.name for server in self.state().servers]

    def is_state(self, name: str, state: str) -> bool:
        return any(server.name == name and server.state == state for server in self.state().servers)

    def restarts(self, name: str) -> int:
        return next(server.restarts for server in self.state().servers if server.name == name)

    def answers(self, name: str) -> bool:
        view = RouterClient(self.state().url).workers()[name]
        return view.state == "ready"

    def until_all_gone(self) -> None:
        """Every process that was ever noted has ended."""
        self.until(lambda: not any(_runs(pid) for pid in self.seen))


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FakeFleet]:
    fleet = FakeFleet(tmp_path)
    yield fleet
    # A supervisor that was told to stop may end, and remove its state file, between any two of these lines.
    state = read_state(fleet.run) if fleet.run.exists() else None
    if state is not None and state.supervisor.alive:
        with suppress(psutil.NoSuchProcess):
            supervisor = psutil.Process(state.supervisor.pid)
            fleet.note_children(supervisor)
            supervisor.kill()
    if fleet.supervisor is not None:
        fleet.supervisor.kill()
        fleet.supervisor.communicate()
    for pid in fleet.seen:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
    shutil.rmtree(fleet.tmp, ignore_errors=True)
