"""From a zoo and options to a plan: which server, which device, which ports, which command line."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from psserve.errors import PlanError
from psserve.fleet import layout
from psserve.fleet.devices import Machine, choose, detect
from psserve.fleet.memory import DTYPE_BYTES, KvShape, cpu_pool, gpu_pool
from psserve.fleet.options import FleetOptions
from psserve.fleet.ports import free_ports, require_free
from psserve.fleet.sglang_args import (
    LOOPBACK,
    EngineSettings,
    reserved_tokens,
    router_env,
    server_args,
    server_env,
)
from psserve.fleet.spec import Checkpoint, FleetPlan, RouterSpec, ServerSpec
from psserve.zoo import Base, Module, Zoo

CPU_CHUNK = 2_048
CPU_RUNNING = 32


def make_plan(
    zoo: Zoo,
    options: FleetOptions,
    *,
    machine: Machine | None = None,
    environ: Mapping[str, str] = os.environ,
) -> FleetPlan:
    """Plan a fleet. Writes nothing and starts nothing.

    Raises:
        UnknownModule: `options.modules` names one the zoo has not.
        PlanError: nothing to serve, a port is taken, or it does not fit this machine.
    """
    machine = machine or detect(environ)
    settings = engine_settings(zoo.base, options, choose(machine, options.device))
    planner = _Planner(zoo, options, machine, settings, environ)
    slots = planner.slots()
    pools = planner.pools(slots)
    planner.settings = within_pool(settings, min(pools.values()), explicit=options.context_length is not None)
    router_port, ports = _ports(options, 3 * len(slots))
    servers = tuple(planner.server(slot, pools[slot.gpu], ports) for slot in slots)
    return FleetPlan(
        zoo=zoo.path,
        base=zoo.base.name,
        servers=servers,
        router=planner.router(servers, min(pools.values()), router_port),
        checkpoints=tuple(
            Checkpoint(module=module.name, path=layout.checkpoint_path(planner.run, module.name))
            for module in planner.modules
        ),
        run_dir=planner.run,
        tmp_dir=planner.tmp,
        worker_key=secrets.token_urlsafe(32),
    )


def engine_settings(base: Base, options: FleetOptions, device: Literal["cpu", "cuda"]) -> EngineSettings:
    """What all servers have in common, with every `auto` resolved.

    Raises:
        PlanError: the context is longer than the base's.
    """
    cpu = device == "cpu"
    context = options.context_length or base.context_length
    if context > base.context_length:
        raise PlanError(f"--context-length {context}: the base {base.name} goes to {base.context_length}")
    return EngineSettings(
        device=device,
        dtype=("float32" if cpu else "bfloat16") if options.dtype == "auto" else options.dtype,
        transfer="nixl" if options.transfer == "auto" else options.transfer,
        page_size=options.page_size,
        context_length=context,
        chunked_prefill_size=options.chunked_prefill_size or (CPU_CHUNK if cpu else None),
        max_running_requests=options.max_running_requests or (CPU_RUNNING if cpu else None),
        extra=options.engine_args,
    )


def within_pool(settings: EngineSettings, kv_tokens: int, *, explicit: bool) -> EngineSettings:
    """The settings with a context that the smallest KV pool can hold.

    SGLang accepts longer prompts and then waits for room that never comes, and whatever is behind them waits too.

    Raises:
        PlanError: the context was asked for explicitly, and does not fit.
    """
    longest = kv_tokens - reserved_tokens(kv_tokens) - settings.page_size
    if settings.context_length <= longest:
        return settings
    if explicit or longest < 1:
        raise PlanError(
            f"a KV pool of {kv_tokens} tokens holds at most {longest} of one request (the rest is reserved for answers "
            f"in progress), and the context is {settings.context_length}: raise --kv-tokens or lower --context-length"
        )
    return replace(settings, context_length=longest)


@dataclass(frozen=True)
class _Slot:
    """A server before it has ports and memory."""

    role: Literal["prefill", "decode"]
    name: str
    module: str | None
    checkpoint: Path
    weight_bytes: int
    gpu: int


class _Planner:
    """The parts of one plan, over what they all look at."""

    def __init__(
        self,
        zoo: Zoo,
        options: FleetOptions,
        machine: Machine,
        settings: EngineSettings,
        environ: Mapping[str, str],
    ) -> None:
        self.base, self.options, self.machine = zoo.base, options, machine
        self.settings, self.environ = settings, environ
        self.modules = _modules(zoo, options)
        self.run, self.tmp = layout.run_dir(zoo.path), layout.tmp_dir(zoo.path)

    def slots(self) -> list[_Slot]:
        """Prefill servers first, then decode servers, dealt to the GPUs in turn."""
        base, gpus = self.base, max(1, len(self.machine.gpus))
        wanted: list[tuple[Literal["prefill", "decode"], str, str | None, Path, int]] = [
            ("prefill", f"prefill-{i}", None, base.path, base.weight_bytes) for i in range(self.options.prefill)
        ]
        for module in self.modules:
            checkpoint = layout.checkpoint_path(self.run, module.name)
            wanted.append(("decode", f"decode-{module.name}-0", module.name, checkpoint, module.weight_bytes))
        if self.options.serve_base:
            wanted.append(("decode", f"decode-{base.name}-0", base.name, base.path, base.weight_bytes))
        scale = DTYPE_BYTES[self.settings.dtype] / DTYPE_BYTES.get(base.dtype, 2)
        return [
            _Slot(role, name, module, checkpoint, int(size * scale), i % gpus)
            for i, (role, name, module, checkpoint, size) in enumerate(wanted)
        ]

    def pools(self, slots: list[_Slot]) -> dict[int, int]:
        """KV tokens of each server, by GPU (on CPU: all under 0), in whole pages."""
        base, page, wanted = self.base, self.settings.page_size, self.options.kv_tokens
        shape = KvShape(base.num_layers, base.num_kv_heads, base.head_dim, self.settings.dtype)
        if self.settings.device == "cpu":
            tokens = cpu_pool(self.machine, shape, [slot.weight_bytes for slot in slots], wanted)
            return dict.fromkeys({slot.gpu for slot in slots}, _whole_pages(tokens, page))
        pools: dict[int, int] = {}
        for gpu in {slot.gpu for slot in slots}:
            weights = [slot.weight_bytes for slot in slots if slot.gpu == gpu]
            pools[gpu] = _whole_pages(gpu_pool(self.machine.gpus[gpu], shape, weights, wanted), page)
        return pools

    def server(self, slot: _Slot, kv_tokens: int, ports: list[int]) -> ServerSpec:
        port, dist_port = ports.pop(), ports.pop()
        bootstrap = ports.pop() if slot.role == "prefill" else None
        rendezvous = self.tmp / f"rendezvous-{slot.name}"
        args = server_args(
            self.settings,
            role=slot.role,
            checkpoint=slot.checkpoint,
            served_name=slot.module or self.base.name,
            port=port,
            dist_port=dist_port,
            bootstrap_port=bootstrap,
            gpu=slot.gpu,
            kv_tokens=kv_tokens,
        )
        env = server_env(
            self.settings, self.environ, tmp_dir=self.tmp, rendezvous=rendezvous, extra=self.options.extra_env
        )
        return ServerSpec(
            name=slot.name,
            role=slot.role,
            module=slot.module,
            host=LOOPBACK,
            port=port,
            bootstrap_port=bootstrap,
            device=f"cuda:{slot.gpu}" if self.settings.device == "cuda" else "cpu",
            command=(sys.executable, "-m", "psserve.engine.worker", *args),
            env=env,
            log=layout.log_path(self.run, slot.name),
            rendezvous=rendezvous,
        )

    def router(self, servers: tuple[ServerSpec, ...], kv_tokens: int, port: int) -> RouterSpec:
        config_path = self.run / "router.json"
        return RouterSpec(
            name="router",
            role="router",
            host=self.options.host,
            port=port,
            command=(sys.executable, "-m", "psserve.router", "--config", str(config_path)),
            env=router_env(self.environ, tmp_dir=self.tmp),
            log=layout.log_path(self.run, "router"),
            config_path=config_path,
            config={
                "host": self.options.host,
                "port": port,
                "api_key": self.options.api_key,
                "base": {
                    "name": self.base.name,
                    "path": str(self.base.path),
                    "vocab_size": self.base.vocab_size,
                    "context_length": self.settings.context_length,
                },
                "modules": self._module_entries(),
                "workers": [_worker_entry(server) for server in servers],
                "request_timeout_s": self.options.request_timeout_s,
                "drain_timeout_s": self.options.drain_s,
                "kv_pool_tokens": kv_tokens,
            },
        )

    def _module_entries(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = [
            {"name": m.name, "aliases": list(m.aliases), "task": m.task, "created": m.created, "path": str(m.path)}
            for m in self.modules
        ]
        if self.options.serve_base:
            entries.append({"name": self.base.name, "path": str(self.base.path)})
        return entries


def _modules(zoo: Zoo, options: FleetOptions) -> list[Module]:
    if options.modules is None:
        modules = zoo.modules()
    else:
        modules = list({module.name: module for module in map(zoo.module, options.modules)}.values())
    if not modules and not options.serve_base:
        raise PlanError(f"the zoo {zoo.path} has no module; add one with `psserve add-model`, or use --serve-base")
    for module in modules:
        if options.serve_base and zoo.base.name in (module.name, *module.aliases):
            raise PlanError(f"--serve-base: the module {module.name} has the base's name {zoo.base.name} already")
    return modules


def _ports(options: FleetOptions, count: int) -> tuple[int, list[int]]:
    """The router's port, and `count` free ones for servers."""
    if options.port:
        router = require_free(options.port, options.host, "--port")
        return router, free_ports(count, taken=frozenset({router}))
    router, *ports = free_ports(count + 1)
    return router, ports


def _whole_pages(tokens: int, page: int) -> int:
    return max(1, tokens // page) * page


def _worker_entry(server: ServerSpec) -> dict[str, Any]:
    return {
        "name": server.name,
        "role": server.role,
        "module": server.module,
        "host": server.host,
        "port": server.port,
        "bootstrap_port": server.bootstrap_port,
    }
