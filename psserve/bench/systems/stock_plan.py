"""The systems of plain SGLang servers: which servers each has, and where a module's requests go.

Servers are planned as psserve plans its own: same options, same environment, none of its hooks. All systems get
the same KV tokens in total. docs/benchmarks.md says of each why it is set up as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from psserve.bench.systems.counters import Server
from psserve.bench.systems.front import ModuleRoute
from psserve.bench.systems.system import SystemSpec
from psserve.contracts.programs import program
from psserve.engine.settings import ROLE, WORKER, Role
from psserve.errors import PlanError
from psserve.fleet.plan import layout
from psserve.fleet.plan.attention import attention_backend
from psserve.fleet.plan.devices import Machine
from psserve.fleet.plan.host import LOCAL, LOOPBACK, local_host
from psserve.fleet.plan.ports import free_ports
from psserve.fleet.plan.settings import engine_settings, with_cores, within_pool
from psserve.fleet.plan.sglang_args import EngineSettings, server_args, server_env
from psserve.zoo import Base

ServerKind = Literal["prefill", "decode", "whole"]


@dataclass(frozen=True, kw_only=True)
class StockProcess:
    """A process to be started, which answers HTTP: a server, or the front."""

    name: str
    port: int
    command: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    log: Path

    @property
    def host_name(self) -> str:
        return LOCAL

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class StockServer(StockProcess):
    """One plain SGLang server."""

    kind: ServerKind
    bootstrap_port: int | None
    """Where decode servers find this prefill server."""

    @property
    def server(self) -> Server:
        return Server(self.name, self.url, prefills=self.kind != "decode")


class StockPlanner:
    """Plans the servers of one system, one after the other. GPUs are dealt out in turn."""

    def __init__(
        self, base: Base, spec: SystemSpec, machine: Machine, *, pool_tokens: int, folder: Path, tmp: Path
    ) -> None:
        """`pool_tokens`: KV cache of the smallest server, in tokens. `folder` is laid out as a fleet's, `tmp` private.

        Raises PlanError: there is no such device, or the context does not fit.
        """
        self._spec, self._folder, self._tmp = spec, folder, tmp
        self._machine, self._head_dim = machine, base.head_dim
        settings = engine_settings(base, spec.fleet_options(), machine)
        settings = with_cores(settings, machine, 1 + len(spec.modules))  # as psserve's own fleet of these modules
        self.settings: EngineSettings = within_pool(settings, pool_tokens, explicit=spec.context_length is not None)
        self.servers: list[StockServer] = []
        self._ports: list[int] = []

    def add(
        self,
        name: str,
        kind: ServerKind,
        checkpoint: Path,
        served_name: str,
        kv_tokens: int,
        extra: tuple[str, ...] = (),
        *,
        sharers: int,
    ) -> StockServer:
        """One more server, of `sharers` that share out a CPU's cores.

        `extra` are SGLang's own arguments, which win over all others.
        """
        http, dist, bootstrap = self.free_ports(3)
        gpus = self._gpus()
        args = server_args(
            self.settings,
            local_host(self._machine, os.environ),
            role=kind,
            checkpoint=checkpoint,
            served_name=served_name,
            port=http,
            dist_port=dist,
            bootstrap_port=bootstrap if kind == "prefill" else None,
            gpus=gpus,
            kv_tokens=kv_tokens // self._spec.page_size * self._spec.page_size,
            kv_events=None,
            extra=(*self._spec.engine_args(), *extra),
            attention=self._attention(gpus),
        )
        server = StockServer(
            name=name,
            kind=kind,
            port=http,
            bootstrap_port=bootstrap if kind == "prefill" else None,
            command=program(WORKER, *args),
            env=self._env(name, kind, sharers),
            log=layout.log_path(self._folder, name),
        )
        self.servers.append(server)
        return server

    def free_ports(self, count: int) -> list[int]:
        """Ports that nobody else of the system was given."""
        ports = free_ports(count, frozenset(self._ports))
        self._ports += ports
        return ports

    def _gpus(self) -> tuple[int, ...]:
        if self.settings.device == "cpu":
            return ()
        return (self._machine.gpus[len(self.servers) % len(self._machine.gpus)].index,)

    def _attention(self, gpus: tuple[int, ...]) -> str | None:
        capability = next((gpu.capability for gpu in self._machine.gpus if gpu.index in gpus), None)
        return attention_backend(self._head_dim, self.settings.dtype, capability)

    def _env(self, name: str, kind: ServerKind, sharers: int) -> dict[str, str]:
        ours = {ROLE: Role.STOCK.value} | self._spec.server_env(
            self.settings.device, self._machine, sharers, does_both=kind == "whole"
        )
        rendezvous = self._tmp / f"rendezvous-{name}"
        host = local_host(self._machine, os.environ)
        return server_env(self.settings, host, tmp_dir=self._tmp, rendezvous=rendezvous, extra=ours)


@dataclass(frozen=True)
class StockKind:
    """One such system."""

    plan: Callable[[Base, SystemSpec, StockPlanner, Callable[[str], Path]], Mapping[str, ModuleRoute]]
    """Adds its servers to the planner, given the checkpoint of each module; returns module -> where its requests go."""
    share: Callable[[int], int]
    """Number of modules -> into how many equal pools its KV cache is cut."""
    needs_front: bool
    """Whether its modules need one URL in front of them, or are asked directly."""


def _disaggregated(
    base: Base, spec: SystemSpec, planner: StockPlanner, checkpoint: Callable[[str], Path]
) -> dict[str, ModuleRoute]:
    """The paper's baseline: each module has a prefill and a decode server of its own."""
    routes = {}
    count = len(spec.modules)
    pool = spec.kv_tokens // (2 * count)
    for module in spec.modules:
        prefill = planner.add(f"prefill-{module}", "prefill", checkpoint(module), module, pool, sharers=count)
        decode = planner.add(f"decode-{module}", "decode", checkpoint(module), module, pool, sharers=count)
        routes[module] = ModuleRoute(decode.url, None, prefill.url, LOOPBACK, prefill.bootstrap_port)
    return routes


def _colocated(
    base: Base, spec: SystemSpec, planner: StockPlanner, checkpoint: Callable[[str], Path]
) -> dict[str, ModuleRoute]:
    """Each module has one ordinary server, whose radix cache keeps what its own module has read and written.

    On a CPU each computes on all cores, which was measured to be faster than sharing them out: seldom are all busy.
    """
    pool = spec.kv_tokens // len(spec.modules)
    return {
        module: ModuleRoute(planner.add(f"server-{module}", "whole", checkpoint(module), module, pool, sharers=1).url)
        for module in spec.modules
    }


def _single(
    base: Base, spec: SystemSpec, planner: StockPlanner, checkpoint: Callable[[str], Path]
) -> dict[str, ModuleRoute]:
    """One model in all roles: an ordinary server of the base, which every module's requests go to."""
    server = planner.add("server-base", "whole", base.path, base.name, spec.kv_tokens, sharers=1)
    return {module: ModuleRoute(server.url, model=base.name) for module in spec.modules}


def _lora(
    base: Base, spec: SystemSpec, planner: StockPlanner, checkpoint: Callable[[str], Path]
) -> dict[str, ModuleRoute]:
    """One ordinary server of the base with every module's LoRA adapter: weights are shared, KV is not."""
    check_lora(spec.modules, spec.adapters)
    adapters = {module: spec.adapters[module] for module in spec.modules}
    extra = lora_arguments(adapters, planner.settings.device)
    server = planner.add("server-base", "whole", base.path, base.name, spec.kv_tokens, extra, sharers=1)
    return {module: ModuleRoute(server.url, model=f"{base.name}:{module}") for module in spec.modules}


def check_lora(modules: Sequence[str], adapters: Mapping[str, Path]) -> None:
    """Raise PlanError where the modules cannot be served as LoRA adapters."""
    if missing := [module for module in modules if module not in adapters]:
        raise PlanError(
            f"system lora: no adapter for {', '.join(missing)}: give the folder of each module's LoRA adapter "
            "(--adapter NAME=DIR); the zoo has it only of modules that are adapters there"
        )


def lora_arguments(adapters: Mapping[str, Path], device: str) -> tuple[str, ...]:
    """SGLang's arguments that load these adapters (module -> folder), all of which may be in one batch."""
    named = (f"{module}={path}" for module, path in adapters.items())
    backend = ("--lora-backend", "torch_native") if device == "cpu" else ()
    return ("--enable-lora", *backend, "--max-loras-per-batch", str(len(adapters)), "--lora-paths", *named)


STOCK_KINDS = {
    "disaggregated": StockKind(_disaggregated, share=lambda modules: 2 * modules, needs_front=True),
    "colocated": StockKind(_colocated, share=lambda modules: modules, needs_front=False),
    "lora": StockKind(_lora, share=lambda modules: 1, needs_front=True),
    "single": StockKind(_single, share=lambda modules: 1, needs_front=True),
}
