"""What runs on each machine of a fleet: starts the servers there as its own children, and ends them.

It is a Ray actor that knows nothing of Ray. Its methods are called one after the other on its main thread, so that
servers are children of a thread that lives as long as it does; each returns at once, or within seconds.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psserve.errors import FleetError
from psserve.fleet.plan.devices import detect
from psserve.fleet.plan.ports import listened_at
from psserve.fleet.plan.sglang_args import inheritable
from psserve.fleet.ray.files import fingerprint
from psserve.fleet.ray.messages import SETTINGS, HostFacts, Run, RunView, Seen
from psserve.fleet.ray.networks import Reached, reached_at
from psserve.fleet.ray.store import Entry, Store
from psserve.fleet.run.memory import MemoryUse, gpu_memory, memory_use
from psserve.fleet.run.preload import PreloadStarter
from psserve.fleet.run.prepare import private_dir
from psserve.fleet.run.process import (
    MOST_LINES,
    Handle,
    Starter,
    SubprocessStarter,
    become_subreaper,
    sweep_descendants,
)
from psserve.versions import versions

LIVING_LINES = 12
"""Of a process that lives: its last ones, among them the report of a probe."""
NEVER_STARTED = 127
SILENT_S = 15.0
"""An owner that has not asked for so long is taken for gone by another one."""
MEASURE_S = 15.0
"""Between two looks at the memory of what runs."""
_KILLED_S = 10.0
_TICK_S = 0.02


@dataclass(frozen=True)
class _Process:
    """A run as psserve's starters know it."""

    run: Run
    host_name: str = ""

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def command(self) -> tuple[str, ...]:
        return self.run.command

    @property
    def env(self) -> Mapping[str, str]:
        return self.run.env

    @property
    def log(self) -> Path:
        return self.run.log


@dataclass
class _Started:
    id: str
    handle: Handle | None
    error: str = ""
    """Why it could not be started."""
    memory: MemoryUse | None = None

    def view(self) -> RunView:
        if self.handle is None:
            return RunView(id=self.id, code=NEVER_STARTED, tail=(self.error,))
        code = self.handle.poll()
        if code is not None:
            return RunView(id=self.id, code=code, tail=tuple(self.handle.tail(MOST_LINES)))
        return RunView(id=self.id, tail=tuple(self.handle.tail(LIVING_LINES)), memory=self.memory)

    def measure(self, on_gpus: Mapping[int, int]) -> None:
        if self.handle is not None and self.handle.poll() is None and self.handle.pid is not None:
            self.memory = memory_use(self.handle.pid, on_gpus)

    def end(self) -> None:
        """Kill it, and wait until it and all its children have gone."""
        deadline = time.monotonic() + _KILLED_S
        while self.handle is not None and self.handle.poll() is None and time.monotonic() < deadline:
            self.handle.kill()
            time.sleep(_TICK_S)


class Agent:
    """The runs of one fleet on one machine. Ends itself, and them, when nobody has looked for `lease_s`."""

    def __init__(self, owner: str, lease_s: float) -> None:
        become_subreaper()
        self._id = secrets.token_hex(8)
        self._owner, self._lease_s = owner, lease_s
        self._looked = time.monotonic()
        self._measured = float("-inf")
        self._runs: dict[str, _Started] = {}
        self._folders: list[Path] = []
        """Those that it has made."""
        self._starter: Starter | None = None
        self._store: Store | None = None
        threading.Thread(target=self._keep_lease, daemon=True).start()

    def claim(self, owner: str, lease_s: float) -> bool:
        """Work for `owner` from now on, and end what an earlier one left. False: the earlier one still asks."""
        if owner != self._owner:
            if time.monotonic() - self._looked < min(SILENT_S, self._lease_s):
                return False
            self._clear()
        self._owner, self._lease_s, self._looked = owner, lease_s, time.monotonic()
        return True

    def facts(self, host: str, nic: str | None) -> dict[str, Any]:
        """The HostFacts, as JSON, of this machine, which Ray knows as `host` and others shall reach over `nic`."""
        said = versions()
        reached = reached_at(host, nic)
        found = HostFacts(
            name=host,
            address=reached.address if isinstance(reached, Reached) else "",
            nic=reached.nic if isinstance(reached, Reached) else "",
            machine=detect(os.environ),
            python=sys.executable,
            environ=inheritable(os.environ),
            tmp=Path(tempfile.gettempdir()),
            versions=(f"psserve {said['psserve']}", f"SGLang {said.get('sglang', 'is missing')}"),
            user=os.getuid(),
            settings=settings(),
            taken_ports=listened_at(),
            wrong=None if isinstance(reached, Reached) else reached,
        )
        return found.model_dump(mode="json")

    def fingerprint(self, path: str) -> str | None:
        """See files.fingerprint."""
        return fingerprint(Path(path))

    def missing(self, digests: list[str]) -> list[str]:
        """See Store, as of the next three."""
        return self._its_store().missing(digests)

    def receive(self, digest: str, offset: int, data: bytes) -> None:
        self._its_store().receive(digest, offset, data)

    def keep(self, digest: str) -> bool | None:
        return self._its_store().keep(digest)

    def folder(self, entries: list[dict[str, Any]]) -> str:
        return str(self._its_store().folder([Entry.model_validate(entry) for entry in entries]))

    def refuse(self, id: str, name: str, reason: str) -> None:
        """Note that a run cannot be started: it counts as one that has ended."""
        if (before := self._runs.get(name)) is not None:
            before.end()
        self._runs[name] = _Started(id, None, f"psserve: error: {reason}")

    def start(self, order: dict[str, Any]) -> None:
        """Start the Run `order`, unless it was started already."""
        run = Run.model_validate(order)
        before = self._runs.get(run.name)
        if before is not None and before.id == run.id:
            return
        if before is not None:
            before.end()
        try:
            for folder in run.folders:
                self._make(folder)
            for path in run.fresh:
                path.unlink(missing_ok=True)
            self._runs[run.name] = _Started(run.id, self._starter_for(run).start(_Process(run)))
        except (FleetError, OSError) as error:
            self._runs[run.name] = _Started(run.id, None, f"psserve: error: {error}")

    def signal(self, run: str, *, kill: bool) -> None:
        """End a run, if it still runs: ask it, or kill it with all its children."""
        for started in self._runs.values():
            if started.id == run and started.handle is not None:
                (started.handle.kill if kill else started.handle.terminate)()

    def look(self) -> dict[str, Any]:
        """What has become of the runs: a Seen, as JSON has it. It renews the lease."""
        self._looked = time.monotonic()
        if self._looked - self._measured > MEASURE_S:
            self._measure()
        return Seen(agent=self._id, runs=tuple(one.view() for one in self._runs.values())).model_dump(mode="json")

    def close(self, owner: str) -> bool:
        """End all that runs. False: it runs for another owner, and nothing was done."""
        if owner == self._owner:
            self._clear()
        return owner == self._owner

    def _measure(self) -> None:
        on_gpus = gpu_memory()
        for started in self._runs.values():
            started.measure(on_gpus)
        self._measured = time.monotonic()

    def _its_store(self) -> Store:
        if self._store is None:
            cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
            self._store = Store(cache / "psserve" / "shipped")
        return self._store

    def _starter_for(self, run: Run) -> Starter:
        if self._starter is None:
            self._starter = SubprocessStarter() if run.preload is None else PreloadStarter(run.preload)
        return self._starter

    def _make(self, folder: Path) -> None:
        was_there = folder.exists()
        private_dir(folder)
        if not was_there:
            self._folders.append(folder)

    def _clear(self) -> None:
        for started in self._runs.values():
            started.end()
        self._runs.clear()
        if self._starter is not None:
            self._starter.close()
            self._starter = None
        self._store = None  # whoever comes next finds one again, whatever was deleted meanwhile
        sweep_descendants()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
        self._folders.clear()

    def _keep_lease(self) -> None:
        while (left := self._looked + self._lease_s - time.monotonic()) > 0:
            time.sleep(min(left + _TICK_S, 1.0))
        sweep_descendants()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)  # the kernel kills whatever was started meanwhile; Ray sees that the agent has ended


def settings() -> dict[str, str]:
    """Those of Ray's settings that matter, as they are in this process's environment."""
    return {name: os.environ[name] for name in SETTINGS if name in os.environ}
