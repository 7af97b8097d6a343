"""What a machine's agent is told while Ray loses the connection to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from psserve.fleet.ray.messages import HostView, Order, Run, Seen, Task

pytest.importorskip("ray")

from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from psserve.fleet.ray import node as under_test

AWAY = ActorUnavailableError("no connection", None)
RAYS_NODE = {"NodeID": "00" * 28, "NodeManagerAddress": "b", "Alive": True, "Resources": {"CPU": 1.0}}


class ScriptedAgent:
    """What it is told shows in `told`, even if Ray says that it may not have been."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.says: list[RayError | None] = []
        """What comes of the next orders, None: no answer; each is done if nothing is left here."""
        self.lost: RayError | None = None

    def __getattr__(self, method: str) -> Any:
        def remote(*arguments: Any, **_: Any) -> Any:
            done = self._do(method, arguments)
            return SimpleNamespace(future=lambda: done)

        return SimpleNamespace(remote=remote)

    def _do(self, method: str, arguments: tuple[Any, ...]) -> Future[Any]:
        future: Future[Any] = Future()
        if method in ("claim", "missing"):
            future.set_result(True)
        elif self.lost is not None:
            future.set_exception(self.lost)
        elif method == "look":
            future.set_result(Seen(agent="x").model_dump())
        else:
            id = arguments[0]["id"] if method == "start" else arguments[0]
            self.told.append(f"{method} {id}")
            if not self.says:
                future.set_result(None)
            elif (error := self.says.pop(0)) is not None:
                future.set_exception(error)
        return future


class Setup:
    """A node that is followed, and the agent that Ray finds or starts on it."""

    def __init__(self) -> None:
        self.agent = ScriptedAgent()
        task = Task(address="auto", fleet="f", owner="o", on_gpus=False, lease_s=600.0, hosts=("b",))
        self.node = under_test.Node(task, "b")
        self.views: list[HostView] = []

    def follow(self) -> None:
        self._following = asyncio.create_task(self.node.follow(self.views.append))

    async def found(self) -> None:
        self.follow()
        await until(lambda: len(self.views) == 1)

    async def replaced(self) -> None:
        """Its agent ends, and there is another one."""
        views = len(self.views)
        self.agent.lost = RayActorError()
        await until(lambda: len(self.views) == views + 1)
        self.agent = ScriptedAgent()
        await until(lambda: len(self.views) == views + 2)


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> Setup:
    made = Setup()
    actor = SimpleNamespace(remote=lambda *_: made.agent)
    monkeypatch.setattr(under_test.ray, "remote", lambda _: SimpleNamespace(options=lambda **_: actor))
    monkeypatch.setattr(under_test.ray, "nodes", lambda: [RAYS_NODE])
    for pause in ("LOOK_S", "AGAIN_S"):
        monkeypatch.setattr(under_test, pause, 0.01)
    return made


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30.0):
        while not holds():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.005)


def start(id: str, **fields: Any) -> Order:
    return Order(host="b", start=Run(id=id, name=f"a{id}", command=("sleep",), env={}, log=Path("/log"), **fields))


def end(id: str) -> Order:
    return Order(host="b", end=id, signal="kill")


async def test_an_order_that_may_not_have_arrived_is_given_again(setup: Setup) -> None:
    await setup.found()
    setup.agent.says = [AWAY, AWAY]
    setup.node.obey(start("1"))
    await until(lambda: setup.agent.told == ["start 1"] * 3)
    await asyncio.sleep(0.1)
    assert setup.agent.told == ["start 1"] * 3


async def test_orders_arrive_in_their_order(setup: Setup) -> None:
    await setup.found()
    setup.agent.says = [AWAY]
    setup.node.obey(start("1"))
    setup.node.obey(end("1"))
    await until(lambda: setup.agent.told == ["start 1", "start 1", "signal 1"])


async def test_an_order_at_which_an_agent_fails_is_not_given_again(
    setup: Setup, capsys: pytest.CaptureFixture[str]
) -> None:
    await setup.found()
    setup.agent.says = [RayError("no such file")]
    setup.node.obey(start("1"))
    setup.node.obey(start("2"))
    await until(lambda: setup.agent.told == ["start 1", "start 2"])
    assert capsys.readouterr().err == "b: no such file\n"


async def test_what_a_lost_machine_was_told_is_lost(setup: Setup) -> None:
    await setup.found()
    setup.agent.says = [AWAY] * 1000
    setup.node.obey(start("1"))
    await setup.replaced()
    setup.node.obey(start("2"))
    await until(lambda: bool(setup.agent.told))
    assert setup.agent.told == ["start 2"]


async def test_an_order_outlives_an_agent_that_nobody_was_told_of(setup: Setup) -> None:
    """A new bridge takes no machine for lost: its supervisor orders nothing anew."""
    before = setup.agent
    before.says = [None]
    await setup.node.find(RAYS_NODE)
    setup.node.obey(start("1"))
    await until(lambda: before.told == ["start 1"])
    before.lost, setup.agent = RayActorError(), ScriptedAgent()
    setup.follow()
    await until(lambda: setup.agent.told == ["start 1"])


async def test_an_order_is_not_given_up_before_its_agent_is_seen_to_be_lost(setup: Setup) -> None:
    await setup.found()
    setup.agent.says = [RayActorError()]
    setup.node.obey(start("1"))
    await until(lambda: setup.agent.told == ["start 1"])
    setup.node.obey(start("2"))
    await until(lambda: setup.agent.told == ["start 1", "start 1", "start 2"])


async def test_the_start_of_a_shipped_run_is_given_again_too(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ship(folder: Path, _: Any) -> Path:
        return folder

    monkeypatch.setattr(under_test, "ship", ship)
    await setup.found()
    setup.agent.says = [AWAY]
    setup.node.obey(start("1", ships=Path("/checkpoint")))
    await until(lambda: setup.agent.told == ["start 1", "start 1"])


async def test_an_end_while_files_are_sent_is_a_refusal(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    await setup.found()
    await _ship_for_ever(setup, monkeypatch)
    setup.node.obey(end("1"))
    await until(lambda: setup.agent.told == ["refuse 1"])


async def test_a_machine_that_is_back_is_told_nothing_of_files_that_were_being_sent(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    await setup.found()
    await _ship_for_ever(setup, monkeypatch)
    await setup.replaced()
    setup.node.obey(start("2"))
    await until(lambda: bool(setup.agent.told))
    assert setup.agent.told == ["start 2"]


async def _ship_for_ever(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = asyncio.Event()

    async def ship(_: Path, call: Callable[..., Any]) -> Path:
        begun.set()
        while True:
            await call("missing", [])

    monkeypatch.setattr(under_test, "ship", ship)
    setup.node.obey(start("1", ships=Path("/checkpoint")))
    await begun.wait()
