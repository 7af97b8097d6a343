"""Whether the hosts of a fleet reach each other, looked at before anything is started on them.

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
from psserve.fleet.plan.sglang_args import router_env
from psserve.fleet.plan.spec import FleetPlan, ServerSpec
from psserve.fleet.run.probe import Door, Neighbour, Report, Task
from psserve.fleet.run.process import MOST_LINES, Handle, Starter, error_among

WITHIN_S = 20.0
"""For all hosts to report; on one that is busy a program takes seconds to start."""
SETTLE_S = 6.0
"""From then on, for them to reach each other."""
_LOOK_AGAIN_S = 0.1


@dataclass(frozen=True, kw_only=True)
class _Probe:
    """The program on one host, as a starter needs to know it."""

    name: str
    host_name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    log: Path


def tasks_of(plan: FleetPlan) -> list[Task]:
    """What is to be looked at on each host: where its servers listen, and that all others and the router get there."""
    doors: dict[str, dict[Door, None]] = {LOCAL: {}}
    known: dict[str, dict[Door, None]] = {LOCAL: {}}
    nics: dict[str, set[str]] = {}
    for server in plan.servers:
        own = doors.setdefault(server.host_name, {})
        fixed = [Door(setting="--host", address=server.host, port=port) for port in _ports(server)]
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


async def require_reachable(plan: FleetPlan, starter: Starter, within_s: float = WITHIN_S) -> None:
    """See that the hosts reach each other. To be awaited on the main thread, as it starts processes.

    Raises:
        StartError: they do not, or a host cannot be looked at; it names the hosts and the setting.
    """
    tasks = tasks_of(plan)
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


def _ports(server: ServerSpec) -> Sequence[int]:
    return [port for port in (server.port, server.bootstrap_port) if port is not None]


def _probe(plan: FleetPlan, task: Task) -> _Probe:
    host = next((host for host in plan.basis.hosts if host.name == task.name), None)
    name = f"probe-{task.name}"
    return _Probe(
        name=name,
        host_name=task.name,
        command=program(
            "psserve.fleet.run.probe", task.model_dump_json(), python=host.python if host else sys.executable
        ),
        env=plan.router.env if host is None else router_env(host.environ, tmp_dir=plan.tmp_dir),
        log=layout.log_path(plan.run_dir, name),
    )


async def _reports(handles: Mapping[str, Handle], within_s: float) -> dict[str, Report]:
    """Host -> its last report, once all are good or nothing more is waited for.

    Raises StartError: a probe ended without one.
    """
    deadline = monotonic() + within_s
    found: dict[str, Report] = {}
    while monotonic() < deadline:
        missing = len(handles) - len(found)
        for name, handle in handles.items():
            if (report := _report(handle)) is not None:
                found[name] = report
            elif name not in found and (handle.is_lost or handle.poll() is not None):
                raise StartError(f"{name} cannot be looked at: {error_among(handle.tail(MOST_LINES))}")
        if len(found) == len(handles):
            if all(report.is_good for report in found.values()):
                break
            if missing:
                deadline = monotonic() + SETTLE_S
        await asyncio.sleep(_LOOK_AGAIN_S)
    return found


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
