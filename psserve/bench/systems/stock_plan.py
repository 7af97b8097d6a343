"""Plain SGLang servers, planned as psserve plans its own: same options, same environment, none of its hooks."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from psserve.bench.systems.server import Server
from psserve.bench.systems.spec import SystemSpec
from psserve.engine.settings import ROLE, Role
from psserve.fleet.plan import layout
from psserve.fleet.plan.devices import Machine
from psserve.fleet.plan.ports import free_ports
from psserve.fleet.plan.settings import engine_settings, within_pool
from psserve.fleet.plan.sglang_args import LOOPBACK, EngineSettings, server_args, server_env
from psserve.zoo import Base

Kind = Literal["prefill", "decode", "whole"]


@dataclass(frozen=True, kw_only=True)
class StockServer:
    """One plain SGLang server to be started."""

    name: str
    kind: Kind
    port: int
    bootstrap_port: int | None
    """Where decode servers find this prefill server."""
    command: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    log: Path

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

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
        self._machine = machine
        settings = engine_settings(base, spec.fleet_options(), machine)
        self.settings: EngineSettings = within_pool(settings, pool_tokens, explicit=spec.context_length is not None)
        self.servers: list[StockServer] = []
        self._ports: list[int] = []

    def add(
        self,
        name: str,
        kind: Kind,
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
        args = server_args(
            self.settings,
            role=kind,
            checkpoint=checkpoint,
            served_name=served_name,
            port=http,
            dist_port=dist,
            bootstrap_port=bootstrap if kind == "prefill" else None,
            gpus=self._gpus(),
            kv_tokens=kv_tokens // self._spec.page_size * self._spec.page_size,
            kv_events=None,
            extra=(*self._spec.export_args(), *extra),
        )
        server = StockServer(
            name=name,
            kind=kind,
            port=http,
            bootstrap_port=bootstrap if kind == "prefill" else None,
            command=(sys.executable, "-m", "psserve.engine.worker", *args),
            env=self._env(name, sharers),
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

    def _env(self, name: str, sharers: int) -> dict[str, str]:
        ours = {ROLE: Role.STOCK.value} | self._spec.server_env(self.settings.device, self._machine, sharers)
        rendezvous = self._tmp / f"rendezvous-{name}"
        return server_env(self.settings, os.environ, tmp_dir=self._tmp, rendezvous=rendezvous, extra=ours)
