"""What supervisor and bridge say to each other, as lines of JSON, and what agents say to the bridge.

    supervisor -> bridge    a Task first, then Orders
    bridge -> supervisor    Events: the machines once, then what is seen on each, again and again

Whatever is lost with a bridge that dies can be said again to the next one: an order twice is the same as once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from psserve.fleet.plan.devices import Machine
from psserve.fleet.run.memory import MemoryUse

SETTINGS = (
    *("RAY_AUTH_MODE", "RAY_memory_monitor_refresh_ms"),
    *("RAY_gcs_rpc_server_reconnect_timeout_s", "RAY_gcs_storage"),
)
"""Environment variables of Ray that decide what a fleet outlives, and who may come in."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def line(self) -> bytes:
        return self.model_dump_json(exclude_defaults=True).encode() + b"\n"


class Task(_Message):
    """The fleet that a bridge works for."""

    address: str
    """Of the Ray cluster."""
    fleet: str
    """One name a zoo and user: the namespace of the fleet's agents."""
    owner: str
    """One name a launch: agents work for one alone."""
    on_gpus: bool
    """Whether machines with GPUs, if there are any, are the only ones wanted."""
    domain_label: str | None = None
    """The label whose value all machines must have in common; None: any machines."""
    nic: str | None = None
    lease_s: float
    hosts: tuple[str, ...] = ()
    """The machines of a fleet that is planned already, by address; none: find them."""
    claims: bool = True
    """Whether agents that are there already are to work for this owner from now on."""


class Run(_Message):
    """One start of one process on a machine."""

    id: str
    """Other than that of any start before."""
    name: str
    """Of the process: what was started under the same name before is killed."""
    command: tuple[str, ...]
    env: Mapping[str, str] = Field(repr=False)
    log: Path
    fresh: tuple[Path, ...] = ()
    """Files that may not be there when it starts."""
    folders: tuple[Path, ...] = ()
    """Private folders that must be there."""
    ships: Path | None = None
    """A checkpoint that is sent there first, and named in the command by its path here."""
    preload: Path | None = None
    """The log of a process that has SGLang imported, from which servers are forked; None: each imports it itself."""


class Order(_Message):
    """Exactly one of these."""

    host: str | None = None
    """Where to start or to end something."""
    start: Run | None = None
    end: str | None = None
    """The id of a run that is to get `signal`."""
    signal: Literal["terminate", "kill"] = "terminate"
    close: bool = False
    """End all runs and all agents of this owner; answered with `closed`."""
    shares: Mapping[str, str] = Field(default_factory=dict)
    """Path -> fingerprint that each machine must have there; answered with `missing`."""


class RunView(_Message):
    """One run as its agent sees it."""

    id: str
    code: int | None = None
    """None: it lives."""
    tail: tuple[str, ...] = ()
    """The last lines that it has logged itself."""
    memory: MemoryUse | None = None
    """What it used when it was last measured."""


class Seen(_Message):
    """All runs of one machine, by the name of the process."""

    agent: str
    """Other than that of any agent before: one that is new knows nothing of what ran before it."""
    runs: tuple[RunView, ...] = ()


class HostFacts(_Message):
    """What a plan must know of a machine, and what was found wrong with it."""

    name: str
    """Its address in Ray."""
    address: str = ""
    nic: str = ""
    machine: Machine
    labels: Mapping[str, str] = Field(default_factory=dict)
    python: str
    environ: Mapping[str, str] = Field(repr=False)
    tmp: Path
    """Its folder for temporary files."""
    versions: tuple[str, ...]
    """Of psserve and SGLang."""
    user: int
    settings: Mapping[str, str]
    """Those of Ray that are set on it."""
    taken_ports: frozenset[int] = frozenset()
    """At which somebody listens."""
    wrong: str | None = None


class HostView(_Message):
    """One machine at one moment."""

    host: str
    seen: Seen | None = None
    """None: it is lost."""
    why: str = ""


class Event(_Message):
    """Exactly one of these."""

    hosts: tuple[HostFacts, ...] | None = None
    head: Mapping[str, str] = Field(default_factory=dict)
    """With `hosts`: settings on the head of the cluster."""
    head_host: str | None = None
    """With `hosts`: the one of them that is the head."""
    view: HostView | None = None
    error: str | None = None
    """The bridge cannot go on, and ends."""
    missing: tuple[str, ...] | None = None
    """Machines that do not see the file."""
    closed: bool = False
