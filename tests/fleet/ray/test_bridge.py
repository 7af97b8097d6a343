"""How the bridge enters a cluster, what it says of it, and how it ends what a fleet has there."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from psserve.fleet.plan.devices import Machine
from psserve.fleet.ray.messages import Event, HostFacts, Order, Task

pytest.importorskip("ray")


def test_agents_are_not_led_to_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray puts the folder that it is entered from before all others that its workers import from."""
    import ray

    from psserve.fleet.ray import bridge

    entered_from: list[str] = []

    def enter(**_: Any) -> None:
        entered_from.append(os.getcwd())
        raise ConnectionError("nobody is there")

    monkeypatch.setattr(ray, "init", enter)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(bridge.Refused, match=r"no way into the Ray cluster at 10\.0\.0\.1:6379: nobody is there"):
        bridge._connect(Task(address="10.0.0.1:6379", fleet="f", owner="o", on_gpus=False, lease_s=1.0))
    assert (entered_from, os.getcwd()) == (["/"], str(tmp_path))


class Call:
    """One that the agent has answered."""

    def __init__(self, gives: Any) -> None:
        self._gives = gives

    def future(self) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(self._gives)
        return done


class OwnedAgent:
    """An agent that an earlier bridge has left."""

    def __init__(self, owner: str) -> None:
        self._owner = owner

    @property
    def close(self) -> Any:
        return self

    def remote(self, owner: str) -> Call:
        return Call(owner == self._owner)


@pytest.mark.parametrize(("owner", "ended"), [("o", True), ("another", False)])
async def test_a_new_bridge_ends_the_agents_of_its_owner(
    owner: str, ended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from psserve.fleet.ray import bridge

    agent = OwnedAgent(owner)
    agents = {("b", "f"): agent}

    def get_actor(name: str, namespace: str) -> OwnedAgent:
        if (name, namespace) not in agents:
            raise ValueError("no such actor")
        return agents[name, namespace]

    killed: list[Any] = []
    monkeypatch.setattr(ray, "get_actor", get_actor)
    monkeypatch.setattr(ray, "kill", killed.append)
    orders = asyncio.StreamReader()
    orders.feed_data(Order(close=True).line())
    orders.feed_eof()
    said = io.StringIO()
    task = Task(address="auto", fleet="f", owner="o", on_gpus=False, lease_s=1.0, hosts=("b", "gone"))
    await bridge.Bridge(task, said).run(orders)
    assert killed == ([agent] if ended else [])
    assert said.getvalue().encode() == Event(closed=True).line()


@pytest.mark.parametrize(("cpus", "said"), [(4.0, "10.0.0.1"), (0.0, None)])
async def test_a_head_that_gets_servers_is_told(cpus: float, said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from psserve.fleet.ray import bridge

    async def settings_of(node: Mapping[str, Any]) -> dict[str, str]:
        return {}

    async def first_look(node: Any, _: Mapping[str, Any]) -> HostFacts:
        machine = Machine(2, 2**34, 2**34, ())
        return HostFacts(
            name=node.name,
            machine=machine,
            python=sys.executable,
            environ={},
            tmp=Path("/tmp"),
            versions=(),
            user=0,
            settings={},
        )

    head = {"CPU": cpus, "node:__internal_head__": 1.0}
    nodes = [
        {"Alive": True, "NodeManagerAddress": "10.0.0.1", "Resources": head, "Labels": {}},
        {"Alive": True, "NodeManagerAddress": "10.0.0.2", "Resources": {"CPU": 4.0}, "Labels": {}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(bridge, "_settings_of", settings_of)
    monkeypatch.setattr(bridge.Node, "first_look", first_look)
    orders, told = asyncio.StreamReader(), io.StringIO()
    orders.feed_eof()
    task = Task(address="auto", fleet="f", owner="o", on_gpus=False, lease_s=1.0)
    await bridge.Bridge(task, told).run(orders)
    assert Event.model_validate_json(told.getvalue()).head_host == said
