"""Looking whether hosts reach each other, with this machine for all of them."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from psserve.errors import StartError
from psserve.fleet.plan.host import LOCAL
from psserve.fleet.run import reachability
from psserve.fleet.run.probe import Door, Neighbour, Report, Task, look
from psserve.fleet.run.process import Handle, Runnable, SubprocessStarter
from psserve.fleet.run.reachability import ENOUGH_S, _is_settled, findings, require_reachable, tasks_of
from tests.fleet.two_hosts import all_here, over_two_hosts
from tests.ports import own_ports
from tests.waiting import PATIENCE_S


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


def test_servers_that_come_are_looked_at_with_those_they_will_work_with(tmp_path: Path) -> None:
    """A decode server on c joins a prefill server on b, which keeps its ports, and decode servers on c and a."""
    plan = over_two_hosts(tmp_path)
    new = replace(plan.servers[1], name="decode-d-0", port=7)
    hosts = (*plan.basis.hosts, replace(plan.basis.hosts[0], name="a"))
    servers = (*plan.servers, replace(plan.servers[2], name="decode-e-0", host_name="a"))
    plan = replace(plan, servers=servers, basis=replace(plan.basis, hosts=hosts))
    local, c, b = tasks_of(plan, [new])
    assert ([one.name for one in local.neighbours], c.name, b.name) == (["c", "b"], "c", "b")
    assert [(door.setting, door.port) for door in c.doors] == [("--host", 7), ("SGLANG_HOST_IP=10.0.0.3", 0)]
    (in_place, own) = b.doors
    assert (in_place.setting, in_place.address, own.setting) == ("--host", "10.0.0.2", "SGLANG_HOST_IP=10.0.0.2")
    assert in_place.port not in {2, 3, 4, 7, 9}
    assert (c.neighbours[0].doors, b.nics) == ((in_place,), ("eth0",))


def test_servers_of_a_host_that_is_gone_are_not_looked_at(tmp_path: Path) -> None:
    plan = over_two_hosts(tmp_path)
    plan = replace(plan, basis=replace(plan.basis, hosts=plan.basis.hosts[1:]))
    assert [task.name for task in tasks_of(plan, [replace(plan.servers[1], port=7)])] == [LOCAL, "c"]


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
    """Look, and wait until this is told, and told again after more calls; what is told before it may be anything."""
    reports: asyncio.Queue[Report] = asyncio.Queue()
    looks = asyncio.create_task(look(task, opened, reports.put_nowait))
    tried_s: list[float] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            while len(tried_s) < 3:
                told = await reports.get()
                if told.model_copy(update={"tried_s": {}}) == expected:
                    tried_s.append(told.tried_s["b"])
        assert tried_s == sorted(set(tried_s))
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


async def test_hosts_that_reach_each_other_are_found_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachability, "SETTLE_S", PATIENCE_S)
    await require_reachable(all_here(tmp_path), SubprocessStarter(), PATIENCE_S)


async def test_a_host_that_is_not_as_planned_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: what is wrong with a host itself stays so, and who misses it is not waited for."""
    monkeypatch.setattr(reachability, "SETTLE_S", PATIENCE_S)
    monkeypatch.setattr(reachability, "ENOUGH_S", 10 * PATIENCE_S)
    with pytest.raises(StartError, match=r"c: UCX_NET_DEVICES=none7: there is no such interface, only .*lo"):
        await require_reachable(all_here(tmp_path, UCX_NET_DEVICES="none7"), SubprocessStarter(), PATIENCE_S)


def reports(tried_s: float, *, here: tuple[str, ...] = ()) -> dict[str, Report]:
    """Of a, which has called at b for so long, and of b, which reaches a."""
    return {
        "a": Report(host="a", ways={"b": ("x",)}, tried_s={"b": tried_s}),
        "b": Report(host="b", here=here),
    }


@pytest.mark.parametrize(
    ("first", "last", "settled"),
    [
        (reports(7.0), reports(7.0 + ENOUGH_S), True),
        (reports(7.0), reports(6.9 + ENOUGH_S), False),
        (reports(7.0), reports(1.0), False),  # another door, found since
        (reports(7.0), {"a": Report(host="a"), "b": Report(host="b")}, True),
        (reports(7.0, here=("y",)), reports(7.0, here=("y",)), True),
    ],
    ids=["tried for long", "not yet", "another door", "reached", "its own fault"],
)
def test_a_way_is_given_up_after_calls_since_all_listen(
    first: dict[str, Report], last: dict[str, Report], settled: bool
) -> None:
    assert _is_settled(first, last) is settled


async def test_a_host_that_says_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"local: no report within 0 s; b: no report within 0 s"):
        await require_reachable(all_here(tmp_path), SubprocessStarter(), 0)


class Noting(SubprocessStarter):
    """Notes the folders for temporary files of what it starts, by host."""

    def __init__(self) -> None:
        self.folders: dict[str, Path] = {}

    def start(self, spec: Runnable) -> Handle:
        if spec.host_name != LOCAL:
            self.folders[spec.host_name] = Path(spec.env["TMPDIR"]).parent
        return super().start(spec)


async def test_a_probe_has_its_hosts_folder_for_temporary_files(tmp_path: Path) -> None:
    plan, starter = all_here(tmp_path), Noting()
    hosts = tuple(replace(host, tmp=tmp_path / host.name) for host in plan.basis.hosts)
    with pytest.raises(StartError):
        await require_reachable(replace(plan, basis=replace(plan.basis, hosts=hosts)), starter, 0)
    assert starter.folders == {"b": tmp_path / "b", "c": tmp_path / "c"}
