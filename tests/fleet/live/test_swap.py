"""What a change sees to before it begins, and leaves when it fails."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from psserve.errors import FleetError, StartError
from psserve.fleet import FleetPlan
from psserve.fleet.live import swap
from psserve.fleet.live.swap import Swap
from psserve.fleet.plan.spec import ModulePlan, PlannedAdapter
from psserve.fleet.run import reachability
from psserve.fleet.run.member import Limits, RestartPolicy
from psserve.fleet.run.process import SubprocessStarter
from psserve.fleet.run.roster import Roster
from tests.fleet.fake_plan import _entry, plan_of, worker
from tests.fleet.sending import Sending
from tests.fleet.two_hosts import all_here
from tests.ports import own_ports
from tests.waiting import PATIENCE_S


class DeafRouter:
    """The part of a roster that a change of adapters needs, with a router that takes nothing over."""

    def __init__(self, tmp_path: Path) -> None:
        self.config: Any = plan_of(tmp_path, {}, [1], tmp_path).router.config
        self.router = SimpleNamespace(spec=SimpleNamespace(log=tmp_path / "router.log"))
        self.coming: list[Any] = []
        self.is_followed = False

    def tell(self, **told: Any) -> None:
        self.config = self.config.model_copy(update={"serial": self.config.serial + 1})


class Adapters:
    """Notes what becomes of adapters."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def load(self, name: str) -> bool:
        self.done.append(f"load {name}")
        return True

    async def discard(self, name: str) -> None:
        self.done.append(f"discard {name}")

    def leave(self, name: str) -> None:
        self.done.append(f"leave {name}")


async def test_an_adapter_that_requests_may_have_got_leaves_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "_FOLLOW_S", 0.0)
    adapters: Any = Adapters()
    roster: Any = DeafRouter(tmp_path)
    planned = PlannedAdapter(module="b", name="b@1")
    new = ModulePlan(
        module="b",
        version=1,
        servers=(),
        checkpoint=None,
        adapter=planned,
        entry=_entry("b", {"adapter": True}),
        workers=(),
    )

    async def make(new: ModulePlan) -> None:
        pass

    change = Swap(roster, adapters, Limits(), lambda text: None, module="b", listed=new.entry, new=new)
    with pytest.raises(FleetError, match="does not take over"):
        await change.run(make)
    assert adapters.done == ["load b@1", "leave b@1"]


def one_more(plan: FleetPlan, **env: str) -> ModulePlan:
    """One more module, with a server on the host of the decode servers. `env` goes over its environment."""
    beside = plan.servers[1]
    (port,) = own_ports(1)
    server = replace(beside, name="decode-d-0", module="d", port=port, env={**beside.env, **env})
    return ModulePlan(
        module="d", version=1, servers=(server,), checkpoint=None, entry=_entry("d", {}), workers=(worker(server, 1),)
    )


async def bring(plan: FleetPlan, new: ModulePlan) -> None:
    """Add a module up to where its files would be made, which fails."""

    async def make(new: ModulePlan) -> None:
        raise FleetError("its files were about to be made")

    adapters: Any = Adapters()
    roster = Roster(plan, SubprocessStarter(), RestartPolicy())
    change = Swap(roster, adapters, Limits(), lambda text: None, module="d", listed=new.entry, new=new)
    try:
        await change.run(make)
    finally:
        assert (roster.coming, roster.config) == ([], plan.router.config)


async def test_a_server_that_others_would_not_reach_is_named_and_not_started(tmp_path: Path) -> None:
    plan = all_here(tmp_path)
    with pytest.raises(StartError, match=r"c: UCX_NET_DEVICES=none7: there is no such interface, only .*lo"):
        await bring(plan, one_more(plan, UCX_NET_DEVICES="none7"))


async def test_a_server_that_all_reach_is_brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the ports of those that run are taken."""
    monkeypatch.setattr(reachability, "SETTLE_S", PATIENCE_S)
    monkeypatch.setattr(reachability, "WITHIN_S", PATIENCE_S)
    plan = all_here(tmp_path)
    taken = socket.create_server(("127.0.0.1", plan.servers[0].port))
    with taken, pytest.raises(FleetError, match="its files were about to be made"):
        await bring(plan, one_more(plan))


async def test_the_time_in_which_files_are_sent_does_not_count(tmp_path: Path) -> None:
    plan, sending = all_here(tmp_path), Sending()
    roster, new, limits = Roster(plan, sending, RestartPolicy()), one_more(plan), Limits(start_timeout_s=0.0)
    unused: Any = None
    change = Swap(roster, unused, limits, lambda text: None, module="d", listed=new.entry, new=new)
    start = asyncio.create_task(change._start(new))
    await asyncio.sleep(0.3)
    assert not start.done()
    sending.awaits_files = False
    with pytest.raises(StartError, match="not ready after 0 s"):
        await asyncio.wait_for(start, PATIENCE_S)
