"""Finding the machines of a Ray cluster before a fleet is planned, and what would keep a fleet from running well."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from psserve.errors import FleetError, PlanError
from psserve.fleet.options.options import FleetOptions
from psserve.fleet.plan import layout
from psserve.fleet.plan.host import Host
from psserve.fleet.plan.spec import FleetPlan
from psserve.fleet.ray.client import RECONNECT, RECONNECT_S, BridgeClient, require_ray
from psserve.fleet.ray.files import fingerprint
from psserve.fleet.ray.messages import Event, HostFacts, Order, Task
from psserve.fleet.ray.starter import RayStarter
from psserve.fleet.run.prepare import make_run_dir, set_aside
from psserve.versions import versions
from psserve.zoo import Zoo

_WITHIN_S = 180.0
_SHARED_S = 60.0
_CLOSED_S = 20.0


@dataclass(frozen=True)
class Cluster:
    """The machines of a Ray cluster, each with an agent that waits for this launch's orders."""

    task: Task
    hosts: tuple[Host, ...]
    warnings: tuple[str, ...]
    log: Path

    def starter(self, plan: FleetPlan) -> RayStarter:
        """What starts a plan's processes there. To be called on the main thread; FleetError: Ray gives no answer."""
        starter = RayStarter(self.task, plan, self.log)
        starter.connect()
        return starter


@contextlib.contextmanager
def surveyed(zoo: Zoo, options: FleetOptions, *, keep: bool) -> Iterator[Cluster]:
    """Look at the cluster of `options` for a fleet of this zoo. With `keep` the agents stay, if nothing fails.

    Raises:
        UsageError: Ray is not installed.
        PlanError: a machine cannot serve this zoo, or Ray is not set up as a fleet needs it.
        FleetError: the cluster cannot be reached, or a machine gives no answer.
    """
    assert options.cluster is not None, "the fleet is to run on a cluster"
    require_ray()
    run = layout.run_dir(zoo.path)
    make_run_dir(run)
    task = Task(
        address=options.cluster.address,
        fleet=layout.tmp_dir(zoo.path).name,
        owner=secrets.token_hex(8),
        on_gpus=options.device != "cpu",
        domain_label=options.cluster.domain_label,
        nic=options.cluster.nic,
        lease_s=options.cluster.lease_secs,
        claims=keep,
    )
    log = layout.log_path(run, "ray")
    set_aside(log)
    bridge = BridgeClient(task, log)
    try:
        event = next(event for event in bridge.wait_for(_WITHIN_S, "Ray") if event.hosts is not None)
        yield Cluster(
            task.model_copy(update={"hosts": tuple(host.name for host in event.hosts or ())}),
            _checked(event, bridge, zoo, is_shared=options.cluster.files == "shared"),
            tuple(advice(event)),
            log,
        )
    except BaseException:
        _release(bridge)
        raise
    if not keep:
        _release(bridge)
    bridge.close()


def _release(bridge: BridgeClient) -> None:
    """Have the agents end that wait for this launch."""
    with contextlib.suppress(FleetError):
        bridge.send(Order(close=True))
        next(event for event in bridge.wait_for(_CLOSED_S, "Ray") if event.closed)
    bridge.close()


def _checked(event: Event, bridge: BridgeClient, zoo: Zoo, *, is_shared: bool) -> tuple[Host, ...]:
    facts = event.hosts or ()
    if wrong := [f"{one.name}: {found}" for one in facts for found in faults(one)]:
        raise PlanError(f"the Ray cluster cannot run this fleet: {'; '.join(wrong)}")
    if is_shared:
        _require_shared(bridge, zoo)
    return tuple(
        Host(
            name=one.name,
            address=one.address,
            nic=one.nic,
            machine=one.machine,
            labels=one.labels,
            python=one.python,
            environ=one.environ,
            tmp=one.tmp,
            taken_ports=one.taken_ports,
        )
        for one in facts
    )


def faults(host: HostFacts) -> Iterator[str]:
    """All that keeps a fleet from running on a machine, and what to do."""
    said = versions()
    here = (f"psserve {said['psserve']}", f"SGLang {said.get('sglang', 'is missing')}")
    if host.wrong is not None:
        yield host.wrong
    if host.versions != here:
        yield f"it has {' and '.join(host.versions)}, and this machine {' and '.join(here)}: install the same"
    if Path(host.python).parent != Path(sys.executable).parent:  # a Python has many names there
        yield f"Ray runs {host.python} there, and psserve {sys.executable} here: install both under one path"
    if host.user != os.getuid():
        yield f"Ray runs there as user {host.user}, and psserve here as {os.getuid()}: the zoo's .run is one user's own"
    if host.settings.get("RAY_AUTH_MODE") != "token":
        yield "whoever reaches Ray may run programs there: set RAY_AUTH_MODE=token for ray start (and a token)"
    if host.settings.get("RAY_memory_monitor_refresh_ms") != "0":
        yield (
            "Ray's memory monitor may end the agent and with it all servers:"
            " set RAY_memory_monitor_refresh_ms=0 for ray start"
        )


def advice(event: Event) -> Iterator[str]:
    """What would let a fleet outlive the head of its cluster, where Ray is not set up so."""
    late = [host.name for host in event.hosts or () if not _waits(host.settings)]
    if late:
        yield f"servers on {', '.join(late)} end soon after Ray's head: set {RECONNECT}={RECONNECT_S} for ray start"
    if event.head_host is not None:
        yield (
            f"servers on {event.head_host} end with Ray's head, which is there: have it offer nothing, with --num-cpus"
            " 0 --num-gpus 0 for its ray start"
        )
    if event.head.get("RAY_gcs_storage") != "rocksdb":
        yield (
            "Ray's head forgets the cluster when it ends, and all servers end: set RAY_gcs_storage=rocksdb and"
            " RAY_gcs_storage_path for its ray start"
        )


def _waits(settings: Mapping[str, str]) -> bool:
    told = settings.get(RECONNECT, "")
    return told.isdigit() and int(told) >= RECONNECT_S


def _require_shared(bridge: BridgeClient, zoo: Zoo) -> None:
    """See that all machines have this very zoo, and this base. Raises PlanError."""
    proof = layout.run_dir(zoo.path) / f"shared-{secrets.token_hex(8)}"  # a copy of the zoo has it not
    proof.touch(mode=0o600)
    try:
        paths = {str(path): fingerprint(path) or "" for path in (proof, zoo.base.path)}
        bridge.send(Order(shares=paths))
        event = next(event for event in bridge.wait_for(_SHARED_S, "Ray") if event.missing is not None)
    finally:
        proof.unlink()
    if event.missing:
        machines = sorted({one.partition(":")[0] for one in event.missing})
        raise PlanError(
            f"{', '.join(machines)}: the zoo {zoo.path} and its base {zoo.base.path} are not the same there as here:"
            " put them on a file system that all machines of the cluster share, under one path"
        )
