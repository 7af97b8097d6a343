"""How the bridge enters a cluster, and ends what a fleet has there."""

from __future__ import annotations

import asyncio
import io
import os
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from psserve.fleet.ray.messages import Event, Order, Task

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
