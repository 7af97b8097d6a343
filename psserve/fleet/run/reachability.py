"""Whether the hosts of a fleet reach each other, looked at before servers are started on them.

A wrong address or interface would show as requests that run into their time limit, long after. So a probe (probe.py)
runs on every host, through the same starter as the servers, and listens and calls as the servers will.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from pydantic import ValidationError

from psserve.contracts.programs import program
from psserve.errors import StartError
from psserve.fleet.plan import layout
from psserve.fleet.plan.host import LOCAL
from psserve.fleet.plan.ports import free_ports
from psserve.fleet.plan.sglang_args import router_env
from psserve.fleet.plan.spec import FleetPlan, ServerSpec
from psserve.fleet.run.probe import Door, Neighbour, Report, Task
from psserve.fleet.run.process import MOST_LINES, Handle, Starter, error_among

WITHIN_S = 20.0
"""For all hosts to report; on one that is busy a program takes seconds to start."""
ENOUGH_S = 2.5
"""A host that has called so long at another one's doors, since all have reported, and is not let in, will not be: that
is more than one call takes at the longest."""
SETTLE_S = 6.0
"""From then on, for a host that is too busy to call."""
_LOOK_AGAIN_S = 0.1


@dataclass(frozen=True, kw_only=True)
class _Probe:
    """The program on one host, as a starter needs to know it."""

    name: str
    host_name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    log: Path


def tasks_of(plan: FleetPlan, coming: Sequence[ServerSpec] | None = None) -> list[Task]:
    """What is to be looked at on each host: where its servers listen, and that all others and the router get there.

    `coming`: servers that are to join those of `plan`, which run and keep their ports. Raises PlanError: no other port
    is free to stand for one of these.
    """
    if coming is None:
        listening = [(server, _ports(server)) for server in plan.servers]
    else:
        listening = [*((server, _ports(server)) for server in coming), *_partners(plan, coming)]
    doors: dict[str, dict[Door, None]] = {LOCAL: {}}
    known: dict[str, dict[Door, None]] = {LOCAL: {}}
    nics: dict[str, set[str]] = {}
    for server, ports in listening:
        own = doors.setdefault(server.host_name, {})
        fixed = [Door(setting="--host", address=server.host, port=port) for port in ports]
        own.update(dict.fromkeys(fixed))
        known.setdefault(server.host_name, {}).update(dict.fromkeys(fixed))
        address = server.env["SGLANG_HOST_IP"]
        own[Door(setting=f"SGLANG_HOST_IP={address}", address=address, port=0)] = None
        nics.setdefault(server.host_name, set()).update(server.env["UCX_NET_DEVICES"].split(","))
    neighbours = {name: Neighbour(name=name, doors=tuple(known[name])) for name in known if known[name]}
    return [
        Task(
            name=name,
            doors=tuple(own),
            nics=tuple(sorted(nics.get(name, ()))),
            neighbours=tuple(one for one in neighbours.values() if one.name != name),
        )
        for name, own in doors.items()
    ]


async def require_reachable(
    plan: FleetPlan, starter: Starter, within_s: float | None = None, *, coming: Sequence[ServerSpec] | None = None
) -> None:
    """See that the hosts of a plan's servers reach each other, or those that are `coming` and the ones that run.

    All must report within `within_s` [WITHIN_S].

    To be awaited on the main thread, as it starts processes. Where all are on this machine there is nothing to see.

    Raises:
        StartError: they do not, or a host cannot be looked at; it names the hosts and the setting.
        PlanError: see `tasks_of`.
    """
    if all(host.is_local for host in plan.basis.hosts):
        return
    within_s = WITHIN_S if within_s is None else within_s
    tasks = tasks_of(plan, coming)
    handles: dict[str, Handle] = {}
    try:
        for task in tasks:
            handles[task.name] = starter.start(_probe(plan, task))
        reports = await _reports(handles, within_s)
    finally:
        await _end(handles.values())
    silent = [f"{name}: no report within {within_s:g} s" for name in handles if name not in reports]
    if wrong := [*findings(reports.values()), *silent]:
        raise StartError(f"servers would not reach each other: {'; '.join(wrong)}")


def findings(reports: Iterable[Report]) -> list[str]:
    """All that is wrong: what a host found about itself, and the ways to hosts that found nothing of the kind."""
    reports = list(reports)
    at_fault = {report.host for report in reports if report.here}
    here = [f"{report.host}: {found}" for report in reports for found in report.here]
    ways = [
        f"{report.host} does not reach {neighbour}: {', '.join(found)}"
        for report in reports
        for neighbour, found in report.ways.items()
        if neighbour not in at_fault
    ]
    return [*here, *ways]


def _ports(server: ServerSpec) -> list[int]:
    return [port for port in (server.port, server.bootstrap_port) if port is not None]


def _partners(plan: FleetPlan, coming: Sequence[ServerSpec]) -> list[tuple[ServerSpec, list[int]]]:
    """The plan's servers, on hosts that are there, with which some that come will work; each with a port in place of
    its own."""
    there = {host.name for host in plan.basis.hosts}
    found = [one for one in plan.servers if one.host_name in there and any(one.role != new.role for new in coming)]
    taken = plan.taken_ports | {port for new in coming for port in _ports(new)}
    return [(server, [port]) for server, port in zip(found, free_ports(len(found), taken), strict=True)]


def _probe(plan: FleetPlan, task: Task) -> _Probe:
    host = next((host for host in plan.basis.hosts if host.name == task.name), None)
    name = f"probe-{task.name}"
    return _Probe(
        name=name,
        host_name=task.name,
        command=program(
            "psserve.fleet.run.probe", task.model_dump_json(), python=host.python if host else sys.executable
        ),
        env=plan.router.env if host is None else router_env(host.environ, tmp_dir=layout.tmp_dir(plan.zoo, host.tmp)),
        log=layout.log_path(plan.run_dir, name),
    )


async def _reports(handles: Mapping[str, Handle], within_s: float) -> dict[str, Report]:
    """Host -> its last report, once nothing in them is expected to change, or nothing more is waited for.

    Raises StartError: a probe ended without one.
    """
    deadline = monotonic() + within_s
    found: dict[str, Report] = {}
    first: dict[str, Report] = {}
    """Those of the moment at which all had reported: since then all doors are open."""
    while monotonic() < deadline:
        for name, handle in handles.items():
            if (report := _report(handle)) is not None:
                found[name] = report
            elif name not in found and (handle.is_lost or handle.poll() is not None):
                raise StartError(f"{name} cannot be looked at: {error_among(handle.tail(MOST_LINES))}")
        if len(found) == len(handles):
            if not first:
                first, deadline = dict(found), monotonic() + SETTLE_S
            if _is_settled(first, found):
                break
        await asyncio.sleep(_LOOK_AGAIN_S)
    return found


def _is_settled(first: Mapping[str, Report], last: Mapping[str, Report]) -> bool:
    """Whether each way to a host that found nothing about itself is reached, or was tried for long enough since."""
    at_fault = {name for name, report in last.items() if report.here}
    return all(
        tried_s - first[name].tried_s.get(neighbour, 0.0) >= ENOUGH_S
        for name, report in last.items()
        for neighbour, tried_s in report.tried_s.items()
        if neighbour not in at_fault
    )


def _report(handle: Handle) -> Report | None:
    try:
        return Report.model_validate_json(handle.tail(1)[0])
    except (IndexError, ValidationError):
        return None


async def _end(handles: Iterable[Handle]) -> None:
    left = list(handles)
    for handle in left:
        handle.kill()
    while True:
        left = [handle for handle in left if not handle.is_lost and handle.poll() is None]
        if not left:
            return
        await asyncio.sleep(_LOOK_AGAIN_S)
