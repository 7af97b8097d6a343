"""The machines that the servers of a fleet run on, and where they reach each other."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from psserve.errors import PlanError
from psserve.fleet.options.options import FleetOptions
from psserve.fleet.plan.devices import Machine

LOCAL = "local"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Host:
    """A machine, as servers on it and on others know it."""

    name: str
    """`LOCAL` for the one that the supervisor and the router run on."""
    address: str
    """IP address that its servers listen on, and at which all others reach them."""
    nic: str
    """Its network interface with this address, as UCX calls it."""
    machine: Machine
    """As it was before the fleet started."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What its cluster says of it."""
    python: str = sys.executable
    """Interpreter that has psserve there."""
    environ: Mapping[str, str] = field(repr=False)
    """What its servers may inherit from."""
    tmp: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    """Its folder for temporary files [this machine's]."""
    taken_ports: frozenset[int] = frozenset()
    """TCP ports of another machine at which somebody listened there when it was asked."""

    @property
    def is_local(self) -> bool:
        return self.name == LOCAL

    def has(self, labels: Mapping[str, str]) -> bool:
        """Whether it has all these labels."""
        return labels.items() <= self.labels.items()


def local_host(machine: Machine, environ: Mapping[str, str]) -> Host:
    """This machine, for a fleet that needs no other: nobody reaches its servers from outside."""
    return Host(name=LOCAL, address=LOOPBACK, nic="lo", machine=machine, environ=environ)


def common_machine(hosts: Sequence[Host]) -> Machine:
    """What settings that all servers have in common must suit: all GPUs, and of anything else the least."""
    machines = [host.machine for host in hosts]
    if len(machines) == 1:
        return machines[0]
    return Machine(
        cores=min(machine.cores for machine in machines),
        total_bytes=min(machine.total_bytes for machine in machines),
        available_bytes=min(machine.available_bytes for machine in machines),
        gpus=tuple(chain.from_iterable(machine.gpus for machine in machines)),
        unusable=tuple(f"{host.name}: {reason}" for host in hosts for reason in host.machine.unusable),
        driver=next((machine.driver for machine in machines if machine.driver), None),
        rdma=all(machine.rdma for machine in machines),
        torch=next((machine.torch for machine in machines if machine.torch), None),
    )


def check_hosts(hosts: Sequence[Host], options: FleetOptions) -> None:
    """Check that a fleet goes over these hosts. Raises PlanError: it asks for what one machine alone can do."""
    tables = {"prefill": options.prefill, "decode": options.decode, "adapters": options.adapters}
    tables |= {f"module.{name}": table for name, table in options.module.items()}
    for name, table in tables.items():
        if table.labels and options.cluster is None:
            raise PlanError(f"{options.table(name)}.labels choose machines of a cluster, and there is no [cluster]")
    if options.cluster is not None and options.router.kv_events:
        raise PlanError(
            f"{options.where('router.kv_events')}: events hold prompts and stay on the router's machine; leave it out"
        )
    if len(hosts) == 1:
        return
    listed = ", ".join(host.name for host in hosts)
    if options.transfer == "shared":
        raise PlanError(f"{options.said('transfer', 'shared')}: servers on {listed} have no memory in common; use nixl")
    if options.router.kv_events:
        raise PlanError(
            f"{options.where('router.kv_events')}: events hold prompts and stay on one machine, and this fleet is on"
            f" {listed}; leave it out"
        )
    for name, table in tables.items():
        if table.gpus is not None:
            where = f"{options.table(name)}.gpus"
            raise PlanError(f"{where} counts the GPUs of one machine, and this fleet is on {listed}: leave it out")
