"""Looking whether hosts reach each other, with this machine for all of them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from psserve.fleet import FleetPlan
from psserve.fleet.plan.host import LOCAL, local_host
from psserve.fleet.run import probe
from psserve.fleet.run.probe import Door, Neighbour, Report, Task, look
from psserve.fleet.run.reachability import findings, tasks_of
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


def test_every_host_calls_at_all_others_and_the_routers_at_all(tmp_path: Path) -> None:
    local, b, c = tasks_of(over_two_hosts(tmp_path))
    assert (local.name, local.doors, [one.name for one in local.neighbours]) == (LOCAL, (), ["b", "c"])
    assert [(door.setting, door.address, door.port) for door in b.doors] == [
        ("--host", "10.0.0.2", 2),
        ("--host", "10.0.0.2", 9),
        ("SGLANG_HOST_IP=10.0.0.2", "10.0.0.2", 0),
    ]
    assert [(one.name, [door.port for door in one.doors]) for one in b.neighbours] == [("c", [3, 4])]
    assert ([one.name for one in c.neighbours], c.nics) == (["b"], ("eth1",))


def test_a_host_at_fault_is_named_and_not_those_that_miss_it() -> None:
    reports = [
        Report(host="a", ways={"b": ("x",), "c": ("no answer",)}),
        Report(host="b", here=("UCX_NET_DEVICES=eth7: there is no such interface",)),
        Report(host="c"),
    ]
    assert findings(reports) == [
        "b: UCX_NET_DEVICES=eth7: there is no such interface",
        "a does not reach c: no answer",
    ]


async def test_what_a_host_has_not_is_found() -> None:
    task = Task(
        name="b", doors=(Door(setting="SGLANG_HOST_IP=192.0.2.1", address="192.0.2.1", port=0),), nics=("none7",)
    )
    with ExitStack() as opened:
        report = await look(task, opened)
    nic, address = sorted(report.here, reverse=True)
    assert nic.startswith("UCX_NET_DEVICES=none7: there is no such interface, only ")
    assert address == "SGLANG_HOST_IP=192.0.2.1: cannot listen on 192.0.2.1: Cannot assign requested address"


async def test_all_doors_of_a_neighbour_are_called_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of which it tells only when it is called; at the door of another host nobody goes in."""
    monkeypatch.setattr(probe, "PATIENCE_S", 0.5)
    port = own_ports(1)[0]
    main = Door(setting="--host", address="127.0.0.1", port=port)
    with ExitStack() as opened:
        b = Task(name="b", doors=(main, Door(setting="UCX", address="127.0.0.1", port=0)))
        assert await look(b, opened) == Report(host="b")
        ways = await look(Task(name="a", neighbours=(Neighbour(name="b", doors=(main,)),)), opened)
        assert ways == Report(host="a")
        wrong = await look(Task(name="a", neighbours=(Neighbour(name="c", doors=(main,)),)), opened)
        assert wrong.ways == {"c": (f"--host: 127.0.0.1:{port}: b is there",)}


async def test_a_door_at_which_nobody_is_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "PATIENCE_S", 0.5)
    door = Door(setting="--host", address="127.0.0.1", port=own_ports(1)[0])
    with ExitStack() as opened:
        report = await look(Task(name="a", neighbours=(Neighbour(name="b", doors=(door,)),)), opened)
    assert report.ways == {"b": (f"--host: 127.0.0.1:{door.port}: Connection refused",)}
