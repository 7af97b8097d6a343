"""A fleet over several hosts, which are namespaces (tests/hosts.py); supervisor and router run at their switch."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from psserve.errors import PsserveError, StartError
from psserve.fleet import FleetPlan, Limits, Supervisor, make_plan
from psserve.fleet.options.config_file import validated
from psserve.fleet.plan.devices import detect
from psserve.fleet.plan.host import Host
from psserve.fleet.run.member import RestartPolicy
from psserve.fleet.run.prepare import make_run_dir
from psserve.fleet.run.process import Starter
from psserve.fleet.run.reachability import require_reachable
from psserve.zoo import Zoo
from tests.e2e.fleet import READY_WITHIN_S, RunningFleet, one_start_at_a_time, router_config, stop
from tests.e2e.forked_launch import become, forked
from tests.e2e.host_starter import HostStarter, SplitStarter
from tests.hosts import NIC, Lan, Place
from tests.waiting import PATIENCE_S

OPTIONS: Mapping[str, Any] = {
    "router": {"port": 0},
    "modules": ["alpha", "beta"],
    "prefill": {"kv_tokens": 16_384},
    "decode": {"kv_tokens": 16_384},
}
"""With three hosts: a prefill server on the first, a decode server on each of the others."""
SPLIT: Mapping[str, Any] = {
    "router": {"port": 0},
    "modules": ["alpha"],
    "prefill": {"kv_tokens": 4_096, "tp": 2},
    "decode": {"kv_tokens": 4_096, "tp": 2},
}
"""With two hosts: a prefill server on the first, a decode server on the other, each in two parts."""
FIRST_PORT = 2_000
"""Of a preflight's servers, below those that fleets choose by themselves; the next has twice as much."""
TRY_AGAIN_S = 0.5
"""Between two tries to start a server on a lost host."""


@dataclass(frozen=True)
class Wrong:
    """A server of a plan with a setting that does not fit its host."""

    server: str
    host: str | None = None
    env: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Finding:
    """What the preflight said of it."""

    error: str
    seconds: float


@dataclass(frozen=True)
class _Site:
    """Where a fleet of a zoo is launched, and the hosts that it goes over. Handed to another process."""

    zoo: Path
    switch: Place
    hosts: Sequence[Place]

    def planned(
        self, options: Mapping[str, Any], environment: Mapping[str, str], output: Path, notes: Path
    ) -> FleetPlan:
        """Become a process at the switch, and plan a fleet."""
        become(environment, output, notes)
        self.switch.enter(from_outside=True)
        machine = detect(environment)
        over = [
            Host(
                name=host.name,
                address=host.address,
                nic=NIC,
                machine=machine,
                environ=environment,
                taken_ports=frozenset(port for _, port in host.listeners()),
            )
            for host in self.hosts
        ]
        return make_plan(Zoo.open(self.zoo), validated(options), hosts=over, environ=environment)


@contextlib.contextmanager
def launched_over(net: Lan, zoo: Path, *, split: bool = False) -> Iterator[RunningFleet]:
    """A fleet over all hosts, ready; it must leave no process behind. `split`: its decode server is on two of them."""
    with contextlib.ExitStack() as ends:
        with one_start_at_a_time():
            *hosts, last = net.hosts.values()
            site = _Site(zoo, net.switch, hosts if split else [*hosts, last])
            launch = ends.enter_context(forked(_launch, site, last if split else None))
            ends.callback(stop, launch)
            launch.await_ready(READY_WITHIN_S)
            config = router_config(zoo, launch)  # by now not that of a supervisor that was killed
        url = ends.enter_context(net.door(config["port"]))
        yield RunningFleet(zoo, url, launch.pid, config)


def preflights(net: Lan, zoo: Path, cases: Sequence[Wrong]) -> list[Finding]:
    """What is said, before anything is started, of fleets that are wrong in these ways."""
    with forked(_look, _Site(zoo, net.switch, [*net.hosts.values()]), cases) as look:
        look.process.join(PATIENCE_S)
        assert look.process.exitcode == 0, look.notes.read_text()
        return [Finding(**finding) for finding in json.loads(look.output.read_text())]


def _launch(site: _Site, second: Place | None, environment: Mapping[str, str], output: Path, notes: Path) -> None:
    """`second`: a host for half of the decode server."""
    plan = site.planned(OPTIONS if second is None else SPLIT, environment, output, notes)
    hosts = [*site.hosts, *([] if second is None else [second])]
    starter: Starter = HostStarter({host.name: host for host in hosts}, plan.run_dir / "logs")
    if second is not None:
        starter = SplitStarter(starter, plan.servers[-1].name, second)
    limits = Limits(restarts=RestartPolicy(lost_s=TRY_AGAIN_S, elsewhere_s=READY_WITHIN_S))
    try:
        Supervisor(plan, starter=starter, limits=limits, on_ready=_say_ready).run()
    except PsserveError as error:
        sys.exit(f"psserve: error: {error}")


def _look(site: _Site, cases: Sequence[Wrong], environment: Mapping[str, str], output: Path, notes: Path) -> None:
    plan = site.planned(OPTIONS, environment, output, notes)
    starter = HostStarter({host.name: host for host in site.hosts}, output.parent)

    async def look_at(number: int, case: Wrong) -> Finding:
        started = time.monotonic()
        try:
            await require_reachable(_made_wrong(plan, case, output.parent / str(number), FIRST_PORT * number), starter)
        except StartError as error:
            return Finding(str(error), time.monotonic() - started)
        return Finding("", time.monotonic() - started)

    async def look_at_all() -> list[Finding]:
        return list(await asyncio.gather(*(look_at(number, case) for number, case in enumerate(cases, start=1))))

    print(json.dumps([vars(finding) for finding in asyncio.run(look_at_all())]))


def _made_wrong(plan: FleetPlan, case: Wrong, run_dir: Path, first_port: int) -> FleetPlan:
    """This plan with the wrong setting, and with a folder and ports of its own."""
    make_run_dir(run_dir)
    servers = []
    for number, server in enumerate(plan.servers):
        bootstrap_port = None if server.bootstrap_port is None else first_port + len(plan.servers)
        own = replace(server, port=first_port + number, bootstrap_port=bootstrap_port)
        if server.name == case.server:
            own = replace(own, host=case.host or own.host, env={**own.env, **(case.env or {})})
        servers.append(own)
    return replace(plan, servers=tuple(servers), run_dir=run_dir)


def _say_ready(url: str) -> None:
    print(f"psserve: ready at {url}", flush=True)
