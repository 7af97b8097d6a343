"""Servers whose host stays lost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from psserve.errors import HostLost, PlanError, StartError
from psserve.fleet import FleetPlan
from psserve.fleet.live.moves import Moves
from psserve.fleet.plan.spec import ProcessSpec, ServerSpec
from psserve.fleet.run.member import Member, RestartPolicy
from psserve.fleet.run.prepare import make_run_dir
from psserve.fleet.run.roster import Roster
from tests.fleet.fake_plan import plan_of

ELSEWHERE_S = RestartPolicy().elsewhere_s


class Handle:
    pid = None

    def __init__(self, lost: set[str], host: str) -> None:
        self._lost, self._host = lost, host

    @property
    def is_lost(self) -> bool:
        return self._host in self._lost

    def poll(self) -> int | None:
        return None


class Hosts:
    """Starts whatever is on a host that is not lost."""

    def __init__(self) -> None:
        self.lost: set[str] = set()

    def start(self, spec: ProcessSpec) -> Any:
        if spec.host_name in self.lost:
            raise HostLost(f"its host {spec.host_name} is lost")
        return Handle(self.lost, spec.host_name)


class Elsewhere:
    """Plans everything on host c, if it has room."""

    has_room = True

    def elsewhere(self, plan: FleetPlan, server: ServerSpec, lost: Collection[str]) -> ServerSpec:
        assert set(lost) == {"b"}
        if not self.has_room:
            raise PlanError("c is full")
        return replace(server, host_name="c", host="10.0.0.3", port=9)


class Setup:
    def __init__(self, tmp_path: Path) -> None:
        plan = plan_of(tmp_path, {"prefill-0": [], "decode-a-0": []}, [1, 2, 3], tmp_path)
        servers = [replace(server, host_name=host) for server, host in zip(plan.servers, "ab", strict=True)]
        make_run_dir(plan.run_dir)
        self.hosts, self.supply, self.notes = Hosts(), Elsewhere(), list[str]()
        starter: Any = self.hosts
        here = plan.basis.hosts[0]
        basis = replace(plan.basis, hosts=tuple(replace(here, name=name) for name in "abc"))
        plan = replace(plan, servers=tuple(servers), basis=basis)
        self.roster = Roster(plan, starter, RestartPolicy(), self.notes.append)
        self.roster.start()
        roster: Any = self.roster
        roster.require_reachable = self.require_reachable
        self.looked_at, self.wrong = list[str](), ""
        self.while_looking: Callable[[], None] = lambda: None
        supply: Any = self.supply
        self.moves = Moves(self.roster, supply, self.notes.append)

    @property
    def member(self) -> Any:
        return self.roster.servers[1]

    async def require_reachable(self, coming: Sequence[ServerSpec]) -> None:
        self.looked_at += [server.host_name for server in coming]
        self.while_looking()
        self.roster.revive()  # as the supervisor does meanwhile
        if self.wrong:
            raise StartError(self.wrong)

    async def look(self) -> None:
        self.roster.revive()
        await self.moves.move(self.moves.due())
        self.roster.revive()


@pytest.fixture
def setup(tmp_path: Path, clock: list[float]) -> Setup:
    return Setup(tmp_path)


async def test_a_server_waits_for_its_host_before_it_starts_elsewhere(setup: Setup, clock: list[float]) -> None:
    setup.hosts.lost.add("b")
    await setup.look()
    assert (setup.member.state, setup.member.spec.host_name) == ("lost", "b")
    clock[0] = ELSEWHERE_S - 1
    await setup.look()
    assert (setup.member.state, setup.member.spec.host_name) == ("lost", "b")
    clock[0] = ELSEWHERE_S
    await setup.look()
    assert (setup.member.state, setup.member.spec.host_name) == ("starting", "c")
    assert setup.notes[-1] == "decode-a-0: b stays lost; it starts on c"
    (worker,) = [one for one in setup.roster.config.workers if one.name == "decode-a-0"]
    assert (worker.host, worker.port, worker.module) == ("10.0.0.3", 9, "a")


async def test_a_host_that_comes_back_in_time_keeps_its_server(setup: Setup, clock: list[float]) -> None:
    setup.hosts.lost.add("b")
    await setup.look()
    setup.hosts.lost.clear()
    clock[0] = ELSEWHERE_S - 1
    await setup.look()
    clock[0] = 10 * ELSEWHERE_S
    await setup.look()
    assert (setup.member.state, setup.member.spec.host_name) == ("starting", "b")


async def test_a_server_that_fits_nowhere_waits_on(setup: Setup, clock: list[float]) -> None:
    setup.supply.has_room = False
    setup.hosts.lost.add("b")
    await setup.look()
    clock[0] = ELSEWHERE_S
    await setup.look()
    assert setup.notes[-1] == "decode-a-0: b stays lost, and no other host can run it: c is full"
    said = len(setup.notes)
    clock[0] += 1
    await setup.look()
    assert len(setup.notes) == said
    setup.supply.has_room = True
    clock[0] += ELSEWHERE_S
    await setup.look()
    assert setup.member.spec.host_name == "c"


async def test_nothing_is_planned_on_a_host_that_is_lost(setup: Setup) -> None:
    assert [host.name for host in setup.roster.plan.basis.hosts] == ["a", "b", "c"]
    setup.hosts.lost.add("b")
    await setup.look()
    assert [host.name for host in setup.roster.plan.basis.hosts] == ["a", "c"]


async def test_a_host_that_is_not_reached_gets_no_server(setup: Setup, clock: list[float]) -> None:
    setup.hosts.lost.add("b")
    await setup.look()
    clock[0] = ELSEWHERE_S
    setup.wrong = "a does not reach c"
    await setup.look()
    assert setup.notes[-1] == "decode-a-0: b stays lost, and no other host can run it: a does not reach c"
    assert (setup.member.state, setup.member.spec.host_name) == ("lost", "b")


async def test_a_host_is_looked_at_once_for_all_servers_that_move_there(setup: Setup, clock: list[float]) -> None:
    twin = Member(replace(setup.member.spec, name="decode-b-0"), setup.roster.servers[0]._starter, RestartPolicy())
    twin.start("key")
    setup.roster.servers.append(twin)
    setup.hosts.lost.add("b")
    await setup.look()
    clock[0] = ELSEWHERE_S
    await setup.look()
    assert [member.spec.host_name for member in setup.roster.servers] == ["a", "c", "c"]
    assert setup.looked_at == ["c"]


async def test_a_server_whose_host_comes_back_while_another_is_looked_at_stays(
    setup: Setup, clock: list[float]
) -> None:
    setup.hosts.lost.add("b")
    await setup.look()
    clock[0] = ELSEWHERE_S

    def back() -> None:
        setup.hosts.lost.clear()
        clock[0] += RestartPolicy().lost_s

    setup.while_looking = back
    await setup.look()
    assert (setup.member.state, setup.member.spec.host_name) == ("starting", "b")
