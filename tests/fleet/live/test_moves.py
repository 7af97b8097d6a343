"""Servers whose host stays lost."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from psserve.errors import HostLost, PlanError, StartError
from psserve.fleet import FleetPlan
from psserve.fleet.live import swap
from psserve.fleet.live.changes import Changes
from psserve.fleet.live.moves import Moves
from psserve.fleet.live.supply import Offer, Offers
from psserve.fleet.live.swap import Swap
from psserve.fleet.plan.spec import ModulePlan, ProcessSpec, ServerSpec
from psserve.fleet.run.member import Limits, Member, RestartPolicy
from psserve.fleet.run.prepare import make_run_dir
from psserve.fleet.run.roster import Roster
from tests.fleet.fake_plan import _entry, plan_of, worker
from tests.waiting import PATIENCE_S

ELSEWHERE_S = RestartPolicy().elsewhere_s


class Handle:
    pid = None

    def __init__(self, lost: set[str], host: str, awaits_files: bool) -> None:
        self._lost, self._host, self.awaits_files = lost, host, awaits_files
        self._code: int | None = None

    @property
    def is_lost(self) -> bool:
        return self._host in self._lost

    def poll(self) -> int | None:
        return self._code

    def terminate(self) -> None: ...

    def kill(self) -> None:
        self._code = -9

    def tail(self, lines: int) -> list[str]:
        return []


class Hosts:
    """Starts whatever is on a host that is not lost."""

    def __init__(self) -> None:
        self.lost: set[str] = set()
        self.send_files = False

    @property
    def lost_hosts(self) -> frozenset[str]:
        return frozenset(self.lost)

    def start(self, spec: ProcessSpec) -> Any:
        if spec.host_name in self.lost:
            raise HostLost(f"its host {spec.host_name} is lost")
        return Handle(self.lost, spec.host_name, self.send_files)


class Elsewhere:
    """Plans everything on host c, if it has room."""

    has_room = True

    def elsewhere(self, plan: FleetPlan, server: ServerSpec, lost: Collection[str]) -> ServerSpec:
        assert set(lost) == {"b"}
        if not self.has_room:
            raise PlanError("c is full")
        return replace(server, host_name="c", host="10.0.0.3", port=9)


class Setup:
    def __init__(self, tmp_path: Path, policy: RestartPolicy) -> None:
        plan = plan_of(tmp_path, {"prefill-0": [], "decode-a-0": []}, [1, 2, 3], tmp_path)
        servers = [replace(server, host_name=host) for server, host in zip(plan.servers, "ab", strict=True)]
        make_run_dir(plan.run_dir)
        self.hosts, self.supply, self.notes = Hosts(), Elsewhere(), list[str]()
        starter: Any = self.hosts
        here = plan.basis.hosts[0]
        basis = replace(plan.basis, hosts=tuple(replace(here, name=name) for name in "abc"))
        plan = replace(plan, servers=tuple(servers), basis=basis)
        self.roster = Roster(plan, starter, policy, self.notes.append)
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
    return Setup(tmp_path, RestartPolicy())


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


async def test_a_lost_host_that_its_servers_have_left_gets_none_until_it_is_back(
    setup: Setup, clock: list[float]
) -> None:
    setup.hosts.lost.add("b")
    await setup.look()
    clock[0] = ELSEWHERE_S
    await setup.look()
    assert setup.member.spec.host_name == "c"
    assert setup.roster.lost_hosts == {"b"}
    assert [host.name for host in setup.roster.plan.basis.hosts] == ["a", "c"]
    setup.hosts.lost.clear()
    assert [host.name for host in setup.roster.plan.basis.hosts] == ["a", "b", "c"]


def test_a_host_for_which_a_server_waits_still_is_lost(setup: Setup) -> None:
    """Though it may be back: the server is about to be started there again."""
    setup.hosts.lost.add("b")
    setup.roster.revive()
    setup.hosts.lost.clear()
    assert setup.roster.lost_hosts == {"b"}


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


async def test_a_server_is_overdue_until_another_host_was_looked_for(setup: Setup, clock: list[float]) -> None:
    setup.supply.has_room = False
    setup.hosts.lost.add("b")
    await setup.look()
    assert setup.roster.overdue == []
    clock[0] = ELSEWHERE_S
    assert setup.roster.overdue == [setup.member]
    await setup.look()
    clock[0] += 2 * ELSEWHERE_S
    assert setup.roster.overdue == []
    setup.hosts.lost.clear()
    await setup.look()
    setup.hosts.lost.add("b")
    await setup.look()
    clock[0] += ELSEWHERE_S
    assert setup.roster.overdue == [setup.member]


async def test_servers_that_come_are_planned_after_those_that_must_move(setup: Setup, clock: list[float]) -> None:
    planned: list[str] = []

    def plan(plan: FleetPlan, module: str, version: int) -> ModulePlan:
        planned.extend(server.host_name for server in plan.servers)
        raise PlanError("this is all that the test needs")

    supply: Any = setup.supply
    supply.plan, supply.offers = plan, lambda: Offers({"d": Offer("d1", _entry("d", {}))}, {})
    adapters: Any = None
    changes = Changes(setup.roster, adapters, supply, setup.moves, Limits(), {})
    setup.hosts.lost.add("b")
    await setup.look()
    clock[0] = ELSEWHERE_S
    with pytest.raises(PlanError, match="all that the test needs"):
        await changes.add("d", lambda text: None)
    assert planned == ["a", "c"]


async def bring(setup: Setup, start_timeout_s: float) -> None:
    """Have a server of one more module come, which is never ready."""
    spec = replace(setup.roster.servers[0].spec, name="decode-d-0", role="decode", module="d")
    entry = _entry("d", {})
    new = ModulePlan(module="d", version=1, servers=(spec,), checkpoint=None, entry=entry, workers=(worker(spec, 1),))

    async def make(new: ModulePlan) -> None:
        setup.roster.revive()

    adapters: Any = None
    limits = Limits(start_timeout_s=start_timeout_s)
    await Swap(setup.roster, adapters, limits, lambda text: None, module="d", listed=entry, new=new).run(make)


@pytest.fixture
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    """Its servers are to move at once when their host is lost."""
    monkeypatch.setattr(swap, "_FOLLOW_S", 0.0)
    return Setup(tmp_path, RestartPolicy(elsewhere_s=0.0))


@pytest.mark.parametrize("send_files", [False, True])
async def test_a_change_whose_servers_are_not_ready_gives_way_to_a_move(impatient: Setup, send_files: bool) -> None:
    impatient.hosts.send_files = send_files
    impatient.hosts.lost.add("b")
    with pytest.raises(StartError, match="given up for decode-a-0, whose host stays lost"):
        async with asyncio.timeout(PATIENCE_S):
            await bring(impatient, math.inf)
    assert impatient.roster.coming == []
    assert impatient.moves.due() == [impatient.member]


async def test_a_change_gives_way_to_no_move_that_was_tried_in_vain(impatient: Setup) -> None:
    impatient.hosts.lost.add("b")
    impatient.roster.revive()
    assert impatient.moves.due() == [impatient.member]
    with pytest.raises(StartError, match="not ready after 0 s"):
        await bring(impatient, 0.0)
