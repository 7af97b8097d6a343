"""What a fleet consists of: the frozen description that planning makes and the supervisor runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from psserve.contracts.router_config import KvEventsConfig, ModuleConfig, RouterConfig, WorkerConfig
from psserve.fleet.options.options import FleetOptions
from psserve.fleet.plan.adapters import AdapterRoom
from psserve.fleet.plan.host import LOCAL, Host
from psserve.fleet.plan.memory import ServerMemory
from psserve.fleet.plan.parsers import NO_PARSERS, Parsers
from psserve.fleet.plan.planned import PlannedServer
from psserve.fleet.plan.sglang_args import EngineSettings

ProcessRole = Literal["prefill", "decode", "router"]


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """One process: what to run, with which environment, and where its output goes."""

    name: str
    role: ProcessRole
    host: str
    """The address that it listens on."""
    host_name: str = LOCAL
    """The host that it runs on."""
    port: int
    command: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    """The whole environment, but for the worker key."""
    log: Path

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def scheme(self) -> str:
        return "http"


@dataclass(frozen=True, kw_only=True)
class ServerSpec(ProcessSpec):
    """One SGLang server."""

    role: Literal["prefill", "decode"]
    module: str | None
    """The decode module it runs, or the group of them; None for a prefill server, which runs the base."""
    bootstrap_port: int | None
    """Where decode servers find this prefill server; None for decode servers."""
    gpus: tuple[int, ...]
    """The visible GPUs it is split over; none: it runs on CPU."""
    memory: ServerMemory
    parsers: Parsers = NO_PARSERS
    """What reads a decode server's answers."""
    max_running_requests: int | None = None
    """Requests that it computes at a time; None: SGLang decides."""
    rendezvous: Path
    """File through which torch.distributed meets itself: no TCP store on any interface. Removed before each start."""
    kv_events: KvEventsConfig | None = None
    """Addresses of its KV events; None: it publishes none."""
    adapters: AdapterRoom | None = None
    """What it has room for; None: it serves no adapters."""
    planned: PlannedServer | None = None
    """What it was planned from, so that it can be planned anew elsewhere; None: it cannot."""

    @property
    def device(self) -> str:
        """`cpu`, `cuda:1`, or `cuda:0,1` when split over two."""
        return f"cuda:{','.join(map(str, self.gpus))}" if self.gpus else "cpu"


@dataclass(frozen=True, kw_only=True)
class RouterSpec(ProcessSpec):
    """The HTTP front."""

    config_path: Path
    config: RouterConfig = field(repr=False)
    """With the keys that nobody else may see: a repr leaves it out."""

    @property
    def scheme(self) -> str:
        return "http" if self.certificate is None else "https"

    @property
    def certificate(self) -> Path | None:
        """The certificate that it shows who connects; None: it speaks plain HTTP."""
        return self.config.ssl_certfile


@dataclass(frozen=True, kw_only=True)
class PlannedCheckpoint:
    """A module whose checkpoint directory must be materialised before its servers start."""

    module: str
    """With its version (NAME@VERSION) where servers join a running fleet."""
    path: Path


@dataclass(frozen=True, kw_only=True)
class PlannedAdapter:
    """A module that its servers find as an adapter in the fleet's folder."""

    module: str
    """As in `PlannedCheckpoint`."""
    name: str
    """What it is called there."""


@dataclass(frozen=True, kw_only=True)
class PlanBasis:
    """The grounds of a plan, so that more servers can be planned into it."""

    options: FleetOptions
    hosts: tuple[Host, ...]
    settings: EngineSettings
    why_transfer: str | None = None
    """Why `--transfer auto` is what the settings say; None: it was asked for."""

    def host_of(self, process: ProcessSpec) -> Host:
        """The host that one of the fleet's processes runs on."""
        return next(host for host in self.hosts if host.name == process.host_name)


@dataclass(frozen=True, kw_only=True)
class ModulePlan:
    """One more module for a fleet that runs, or other weights for one that it serves."""

    module: str
    version: int
    """1 for a new module, raised by each replacement of its weights; a part of the names of servers and checkpoint."""
    servers: tuple[ServerSpec, ...]
    """None for an adapter, where the servers that it shares run already."""
    checkpoint: PlannedCheckpoint | None
    """None: it is an adapter."""
    adapter: PlannedAdapter | None = None
    entry: ModuleConfig
    """The module in RouterConfig.modules, with this version."""
    workers: tuple[WorkerConfig, ...]
    """Its servers in RouterConfig.workers, with this version."""


@dataclass(frozen=True, kw_only=True)
class FleetPlan:
    """Everything that will run, and where its files are."""

    zoo: Path
    base: str
    servers: tuple[ServerSpec, ...]
    router: RouterSpec
    checkpoints: tuple[PlannedCheckpoint, ...]
    adapters: tuple[PlannedAdapter, ...] = ()
    basis: PlanBasis
    run_dir: Path
    tmp_dir: Path
    """Private (0700) TMPDIR of all processes of this machine; those of others have one in their `tmp`.

    Not under the zoo: a Unix socket's path has at most 107 bytes.
    """

    @property
    def worker_key(self) -> str:
        """The key that servers require and only the router knows. Made anew by every plan, never printed."""
        return self.router.config.worker_key

    @property
    def operator_key(self) -> str | None:
        """The key that opens the router to the supervisor and to psserve's commands. As secret as the worker key."""
        return self.router.config.operator_key

    @property
    def taken_ports(self) -> frozenset[int]:
        """The ports of its processes, and those that others had on its hosts."""
        own = (port for server in self.servers for port in (server.port, server.bootstrap_port) if port is not None)
        return frozenset((self.router.port, *own)).union(*(host.taken_ports for host in self.basis.hosts))

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules served, in order."""
        return tuple(module.name for module in self.router.config.modules)
