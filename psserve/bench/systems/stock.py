"""A system of plain SGLang servers and their front: planned, started, awaited and ended."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

from psserve.bench.systems.front import ModuleRoute
from psserve.bench.systems.stock_plan import STOCK_KINDS, StockPlanner, StockProcess
from psserve.bench.systems.system import RunningSystem, SystemSpec, Target, warm_up
from psserve.contracts.programs import program
from psserve.errors import FleetError, StartError
from psserve.fleet.plan import layout
from psserve.fleet.plan.devices import detect
from psserve.fleet.plan.sglang_args import router_env
from psserve.fleet.run.checkpoints import make_checkpoint, remove_checkpoints
from psserve.fleet.run.preload import PreloadStarter
from psserve.fleet.run.prepare import make_run_dir
from psserve.fleet.run.process import Handle, Runnable, SubprocessStarter, last_error
from psserve.fleet.run.router_client import HttpClient
from psserve.zoo import Zoo, serving_form

_POLL_S = 0.2
_END_WITHIN_S = 20.0


@contextlib.contextmanager
def stock_system(name: str, spec: SystemSpec, note: Callable[[str], None]) -> Iterator[RunningSystem]:
    """Start the system `name` of STOCK_KINDS, and end it at the end. Raises PlanError, StartError, ZooError."""
    zoo, kind = Zoo.open(spec.zoo), STOCK_KINDS[name]
    if name == "lora":
        spec = replace(spec, adapters={**adapters_of(zoo, spec.modules), **spec.adapters})
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
        processes: list[StockProcess] = [*planner.servers, *front]
        with started(processes, on_cpu=planner.settings.device == "cpu", folder=folder) as handles:
            await_healthy(processes, handles, spec.start_timeout_s, note)
            warm_up(endpoints, spec.start_timeout_s, note)
            servers = tuple(server.server for server in planner.servers)
            pids = {name: pid for name, handle in handles.items() if (pid := handle.pid) is not None}
            commands = {process.name: list(process.command) for process in processes}
            target = Target(urls=endpoints, servers=servers, pids=pids)
            yield RunningSystem(target, {"commands": commands}, spec.exports)


def adapters_of(zoo: Zoo, modules: Sequence[str]) -> dict[str, Path]:
    """Module -> folder of its adapter, of those of `modules` that are adapters. Raises ZooError."""
    found = (zoo.module(name) for name in modules)
    return {module.name: serving_form(zoo, module) for module in found if module.adapter is not None}


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


def _front(routes: Mapping[str, ModuleRoute], port: int, folder: Path, tmp: Path) -> StockProcess:
    path = tmp / "routes.json"
    path.write_text(json.dumps({module: asdict(route) for module, route in routes.items()}))
    command = program("psserve.bench.systems.front", str(path), str(port))
    env = router_env(os.environ, tmp_dir=tmp)
    log = layout.log_path(folder, "front")
    return StockProcess(name="front", port=port, command=command, env=env, log=log)


@contextlib.contextmanager
def started(processes: Sequence[Runnable], *, on_cpu: bool, folder: Path) -> Iterator[dict[str, Handle]]:
    """Start processes, and end them all at the end. On a CPU they are forked from one that has SGLang imported.

    Raises StartError.
    """
    preloaded = PreloadStarter(layout.log_path(folder, "preload")) if on_cpu else None
    starter = preloaded or SubprocessStarter()
    handles: dict[str, Handle] = {}
    try:
        for process in processes:
            process.log.unlink(missing_ok=True)
            handles[process.name] = starter.start(process)
        yield handles
    finally:
        _end(list(handles.values()))
        if preloaded is not None:
            preloaded.close()


def await_healthy(
    servers: Sequence[StockProcess], handles: dict[str, Handle], within_s: float, note: Callable[[str], None]
) -> None:
    """Wait until every server answers its health check. Raises StartError, naming the server that does not and why."""
    deadline = time.monotonic() + within_s
    waiting, up = list(servers), -1
    while waiting:
        for server in waiting:
            if (code := handles[server.name].poll()) is not None:
                raise _failure(server, f"exited with code {code}")
        waiting = [server for server in waiting if not _healthy(server.url)]
        if waiting and time.monotonic() > deadline:
            raise _failure(waiting[0], f"was not ready within {within_s:g} s")
        if up != (up := len(servers) - len(waiting)):
            note(f"{up} of {len(servers)} servers are up")
        time.sleep(_POLL_S if waiting else 0)


def _failure(server: StockProcess, what: str) -> StartError:
    return StartError(f"{server.name} {what}: {last_error(server.log)} (log: {server.log})")


def _healthy(url: str) -> bool:
    with contextlib.suppress(FleetError):
        HttpClient(url).get("/health", timeout_s=5)
        return True
    return False


def _end(handles: Sequence[Handle]) -> None:
    for handle in handles:
        handle.terminate()
    deadline = time.monotonic() + _END_WITHIN_S
    while any([handle.poll() is None for handle in handles]):  # a list: every one must be asked, for that reaps it
        if time.monotonic() > deadline:
            for handle in handles:
                handle.kill()
        time.sleep(_POLL_S)
