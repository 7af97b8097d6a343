"""Looking whether hosts reach each other, with this machine for all of them."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from psserve.errors import StartError
from psserve.fleet import FleetPlan
from psserve.fleet.plan.host import LOCAL, local_host
from psserve.fleet.run import reachability
from psserve.fleet.run.prepare import make_run_dir
from psserve.fleet.run.probe import Door, Neighbour, Report, Task, look
from psserve.fleet.run.process import SubprocessStarter
from psserve.fleet.run.reachability import findings, require_reachable, tasks_of
from tests.fleet.fake_plan import plan_of
from tests.ports import own_ports
from tests.waiting import PATIENCE_S


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


def neighbour(*doors: Door) -> Task:
    """A task to reach b, which has these doors."""
    return Task(name="a", neighbours=(Neighbour(name="b", doors=doors),))


async def said(task: Task, opened: ExitStack, expected: Report) -> None:
    """Look, and wait until this is told; what is told before it may be anything."""
    reports: asyncio.Queue[Report] = asyncio.Queue()
    looks = asyncio.create_task(look(task, opened, reports.put_nowait))
    try:
        async with asyncio.timeout(PATIENCE_S):
            while await reports.get() != expected:
                pass
    finally:
        looks.cancel()


async def test_all_doors_of_a_neighbour_are_called_at() -> None:
    """Also one of which it tells only when it is called."""
    main = Door(setting="--host", address="127.0.0.1", port=own_ports(1)[0])
    with ExitStack() as opened:
        b = Task(name="b", doors=(main, Door(setting="UCX", address="127.0.0.1", port=0)))
        assert await look(b, opened) == Report(host="b")
        assert await look(neighbour(main), opened) == Report(host="a")


async def test_a_door_that_only_its_neighbour_sees_is_told() -> None:
    port, other = own_ports(2)
    doors = (
        Door(setting="--host", address="127.0.0.1", port=port),
        Door(setting="UCX", address="127.0.0.1", port=other),
    )

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(Neighbour(name="b", doors=doors).model_dump_json().encode() + b"\n\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(receive, "127.0.0.1", port)
    with ExitStack() as opened:
        opened.callback(server.close)
        ways = {"b": (f"UCX: 127.0.0.1:{other}: Connection refused",)}
        await said(neighbour(doors[0]), opened, Report(host="a", ways=ways))


async def test_at_the_door_of_another_host_nobody_goes_in() -> None:
    main = Door(setting="--host", address="127.0.0.1", port=own_ports(1)[0])
    with ExitStack() as opened:
        await look(Task(name="c", doors=(main,)), opened)
        ways = {"b": (f"--host: 127.0.0.1:{main.port}: c is there",)}
        await said(neighbour(main), opened, Report(host="a", ways=ways))


async def test_a_door_at_which_nobody_is_is_told_until_somebody_comes() -> None:
    main = Door(setting="--host", address="127.0.0.1", port=own_ports(1)[0])
    with ExitStack() as opened:
        ways = {"b": (f"--host: 127.0.0.1:{main.port}: Connection refused",)}
        await said(neighbour(main), opened, Report(host="a", ways=ways))
        late = asyncio.create_task(look(neighbour(main), opened))
        await look(Task(name="b", doors=(main,)), opened)
        assert await late == Report(host="a")


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


async def test_hosts_that_reach_each_other_are_found_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachability, "SETTLE_S", PATIENCE_S)
    await require_reachable(all_here(tmp_path), SubprocessStarter(), PATIENCE_S)


async def test_a_host_that_is_not_as_planned_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachability, "SETTLE_S", 0.1)
    with pytest.raises(StartError, match=r"c: UCX_NET_DEVICES=none7: there is no such interface, only .*lo"):
        await require_reachable(all_here(tmp_path, UCX_NET_DEVICES="none7"), SubprocessStarter(), PATIENCE_S)


async def test_a_host_that_says_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"local: no report within 0 s; b: no report within 0 s"):
        await require_reachable(all_here(tmp_path), SubprocessStarter(), 0)
