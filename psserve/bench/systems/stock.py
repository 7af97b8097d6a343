"""A system of plain SGLang servers, from its plan to its end."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from psserve.bench.systems.front import Route
from psserve.bench.systems.running import RunningSystem
from psserve.bench.systems.spec import SystemSpec
from psserve.bench.systems.stock_kinds import STOCK_KINDS
from psserve.bench.systems.stock_plan import StockPlanner
from psserve.bench.systems.stock_servers import Listening, await_healthy, started
from psserve.bench.systems.warm_up import warm_up
from psserve.fleet.plan import layout
from psserve.fleet.plan.devices import detect
from psserve.fleet.plan.sglang_args import LOOPBACK, router_env
from psserve.fleet.run.checkpoints import make_checkpoint, remove_checkpoints
from psserve.fleet.run.prepare import make_run_dir
from psserve.zoo import Zoo


@dataclass(frozen=True)
class FrontProcess:
    """The front as a process."""

    name: str
    port: int
    command: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    log: Path

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"


@contextlib.contextmanager
def stock_system(name: str, spec: SystemSpec, note: Callable[[str], None]) -> Iterator[RunningSystem]:
    """Start the system `name` of STOCK_KINDS, and end it at the end. Raises PlanError, StartError, ZooError."""
    zoo, kind = Zoo.open(spec.zoo), STOCK_KINDS[name]
    begun = time.monotonic()
    with _folders(zoo.path, name) as (folder, tmp):

        @cache
        def checkpoint(module: str) -> Path:
            path = layout.checkpoint_path(folder, module)
            make_checkpoint(zoo, zoo.module(module), path)
            return path

        pool = spec.kv_tokens // kind.share(len(spec.modules))
        planner = StockPlanner(zoo.base, spec, detect(), pool_tokens=pool, folder=folder, tmp=tmp)
        routes = kind.plan(zoo.base, spec, planner, checkpoint)
        front = [_front(routes, planner.free_ports(1)[0], folder, tmp)] if kind.needs_front else []
        endpoints = {module: front[0].url if front else route.url for module, route in routes.items()}
        processes: list[Listening] = [*planner.servers, *front]
        with started(processes, on_cpu=planner.settings.device == "cpu", folder=folder) as handles:
            await_healthy(processes, handles, spec.start_timeout_s, note)
            warm_up(endpoints, spec.start_timeout_s, note)
            yield RunningSystem(
                name=name,
                endpoints=endpoints,
                servers=tuple(server.server for server in planner.servers),
                pids={name: pid for name, handle in handles.items() if (pid := handle.pid) is not None},
                ready_s=time.monotonic() - begun,
                settings={"commands": {process.name: list(process.command) for process in processes}},
            )


@contextlib.contextmanager
def _folders(zoo: Path, name: str) -> Iterator[tuple[Path, Path]]:
    """A private folder, of which only the logs stay, and a short one for sockets."""
    run = layout.run_dir(zoo)
    folder = run / f"bench-{name}"
    make_run_dir(run)
    make_run_dir(folder)
    try:
        with tempfile.TemporaryDirectory(prefix="psserve-bench-") as tmp:
            yield folder, Path(tmp)
    finally:
        remove_checkpoints(folder)


def _front(routes: Mapping[str, Route], port: int, folder: Path, tmp: Path) -> FrontProcess:
    path = tmp / "routes.json"
    path.write_text(json.dumps({module: asdict(route) for module, route in routes.items()}))
    command = (sys.executable, "-m", "psserve.bench.systems.front", str(path), str(port))
    env = router_env(os.environ, tmp_dir=tmp)
    return FrontProcess("front", port, command, env, layout.log_path(folder, "front"))
