"""A plan of fake servers over two hosts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from psserve.fleet import FleetPlan
from psserve.fleet.plan.host import local_host
from psserve.fleet.run.prepare import make_run_dir
from tests.fleet.fake_plan import plan_of
from tests.ports import own_ports


def over_two_hosts(tmp_path: Path) -> FleetPlan:
    """A prefill server on b, two decode servers on c, the router here."""
    plan = plan_of(tmp_path, {"prefill-0": [], "decode-a-0": [], "decode-b-0": []}, [1, 2, 3, 4], tmp_path)
    places = {"b": ("10.0.0.2", "eth0"), "c": ("10.0.0.3", "eth1")}
    here = local_host(plan.basis.hosts[0].machine, {})
    hosts = tuple(replace(here, name=name, address=address, nic=nic) for name, (address, nic) in places.items())
    servers = [
        replace(
            server,
            host_name=name,
            host=places[name][0],
            env={"SGLANG_HOST_IP": places[name][0], "UCX_NET_DEVICES": places[name][1]},
        )
        for server, name in zip(plan.servers, "bcc", strict=True)
    ]
    servers[0] = replace(servers[0], bootstrap_port=9)
    return replace(plan, servers=tuple(servers), basis=replace(plan.basis, hosts=hosts))


def all_here(tmp_path: Path, **env: str) -> FleetPlan:
    """That plan with this machine for each host; `env` is of the decode servers."""
    plan = over_two_hosts(tmp_path)
    make_run_dir(plan.run_dir)
    ports = iter(own_ports(4))
    servers = [
        replace(
            server,
            host="127.0.0.1",
            port=next(ports),
            bootstrap_port=None if server.bootstrap_port is None else next(ports),
            env={"SGLANG_HOST_IP": "127.0.0.1", "UCX_NET_DEVICES": "lo"} | (env if server.role == "decode" else {}),
        )
        for server in plan.servers
    ]
    return replace(plan, servers=tuple(servers))
