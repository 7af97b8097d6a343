"""Processes on other machines as the supervisor sees them, through bridges that end and are replaced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from psserve.errors import FleetError, HostLost
from psserve.fleet.options.config_file import validated
from psserve.fleet.plan.spec import ServerSpec
from psserve.fleet.ray.messages import Event, HostView, Order, RunView, Seen, Task
from psserve.fleet.ray.starter import CLAIM_S, RayStarter
from psserve.fleet.run.memory import MemoryUse
from tests.fleet.fake_plan import plan_of


class ScriptedBridge:
    """A bridge whose agents do nothing by themselves: the test says what they see."""

    def __init__(self, task: Task, log: Path) -> None:
        self.orders: list[Order] = []
        self.said: list[Event] = []
        self.has_ended = False

    def ended(self) -> bool:
        return self.has_ended

    def send(self, order: Order) -> None:
        self.orders.append(order)

    def events(self) -> Iterator[Event]:
        said, self.said = self.said, []
        return iter(said)

    def wait_for(self, within_s: float, what: str) -> Iterator[Event]:
        if self.has_ended:
            raise FleetError(what)
        yield Event(closed=Order(close=True) in self.orders)

    def close(self) -> None:
        self.has_ended = True

    def sees(self, *runs: RunView, agent: str = "x") -> None:
        self.said.append(Event(view=HostView(host="b", seen=Seen(agent=agent, runs=runs))))

    def loses(self) -> None:
        self.said.append(Event(view=HostView(host="b", why="its node died")))


class Setup:
    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: str = "shared") -> None:
        monkeypatch.setattr("psserve.fleet.ray.starter._AGAIN_S", 0.0)
        self.bridges: list[ScriptedBridge] = []
        plan = plan_of(tmp_path, {"decode-a-0": []}, [1, 2], tmp_path)
        here = plan.basis.hosts[0]
        hosts = tuple(replace(here, name=name, tmp=Path(f"/scratch/{name}")) for name in "bc")
        cluster = {"kind": "ray", "address": "auto", "private_network": True, "files": files}
        plan = replace(plan, basis=replace(plan.basis, hosts=hosts, options=validated({"cluster": cluster})))
        self.spec: ServerSpec = replace(plan.servers[0], host_name="b")
        task = Task(address="auto", fleet="f", owner="o", on_gpus=False, lease_s=600.0, hosts=("b",))
        self.starter = RayStarter(task, plan, tmp_path / "log", connect=self._connect)

    def _connect(self, task: Task, log: Path) -> Any:
        self.bridges.append(ScriptedBridge(task, log))
        return self.bridges[-1]

    @property
    def bridge(self) -> ScriptedBridge:
        return self.bridges[-1]

    def start(self) -> tuple[Any, str]:
        """A process on b, and the id of its run."""
        handle: Any = self.starter.start(self.spec)
        assert self.bridge.orders[-1].start is not None
        return handle, self.bridge.orders[-1].start.id


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    return Setup(tmp_path, monkeypatch)


def test_a_start_is_ordered_with_all_that_it_needs(setup: Setup) -> None:
    setup.start()
    (order,) = setup.bridge.orders
    assert order.host == "b"
    assert order.start is not None
    assert (order.start.name, order.start.command) == (setup.spec.name, setup.spec.command)
    assert order.start.fresh == (setup.spec.rendezvous,)
    assert [folder.parent for folder in order.start.folders] == [Path("/scratch/b")]
    assert order.start.log == setup.spec.log


def test_what_shares_no_files_logs_in_its_machines_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup(tmp_path, monkeypatch, files="ship")
    setup.start()
    start = setup.bridge.orders[-1].start
    assert start is not None
    assert (start.log.parent,) == start.folders


def test_a_process_lives_until_its_agent_says_otherwise(setup: Setup) -> None:
    handle, run = setup.start()
    assert (handle.pid, handle.poll(), handle.is_lost, handle.tail(5)) == (None, None, False, [])
    setup.bridge.sees(RunView(id=run, tail=("a", "b")))
    assert (handle.poll(), handle.tail(1)) == (None, ["b"])
    setup.bridge.sees(RunView(id=run, code=1, tail=("c",)))
    assert (handle.poll(), handle.tail(5)) == (1, ["c"])


def test_the_memory_of_a_process_is_what_its_agent_says(setup: Setup) -> None:
    handle, run = setup.start()
    assert handle.memory() is None
    setup.bridge.sees(RunView(id=run, memory=MemoryUse(main_bytes=5)))
    assert handle.poll() is None
    assert handle.memory() == MemoryUse(main_bytes=5)


def test_it_is_not_lost_while_its_start_is_on_the_way(setup: Setup) -> None:
    handle, _ = setup.start()
    setup.bridge.sees()
    assert (handle.poll(), handle.is_lost) == (None, False)


def test_it_is_lost_with_its_machine(setup: Setup) -> None:
    handle, run = setup.start()
    setup.bridge.sees(RunView(id=run))
    setup.bridge.loses()
    assert (handle.is_lost, handle.poll()) == (True, None)
    with pytest.raises(HostLost, match="its host b is lost: its node died"):
        setup.starter.start(setup.spec)
    setup.bridge.sees(agent="y")
    assert handle.is_lost
    assert not setup.start()[0].is_lost


def lost_and_found(setup: Setup) -> tuple[Any, str]:
    """A process that runs on a machine which was lost, and is back; and its run."""
    handle, run = setup.start()
    setup.bridge.sees(RunView(id=run))
    setup.bridge.loses()
    assert handle.is_lost
    setup.bridge.sees(RunView(id=run), RunView(id="older", code=1))
    setup.starter.listen()
    return handle, run


def test_what_a_machine_went_on_running_while_it_was_lost_is_started_no_second_time(setup: Setup) -> None:
    _, run = lost_and_found(setup)
    again = setup.starter.start(setup.spec)
    assert (again.is_lost, again.poll(), len(setup.bridge.orders)) == (False, None, 1)
    setup.bridge.sees(RunView(id=run, code=3))
    assert again.poll() == 3


def test_it_is_lost_again_with_another_agent(setup: Setup) -> None:
    lost_and_found(setup)
    again = setup.starter.start(setup.spec)
    setup.bridge.sees(agent="y")
    assert again.is_lost


def test_another_process_of_its_name_is_started(setup: Setup) -> None:
    _, run = lost_and_found(setup)
    setup.spec = replace(setup.spec, port=setup.spec.port + 1, env={"OTHER": "1"})
    _, other = setup.start()
    assert other != run
    setup.bridge.sees(RunView(id=run))
    setup.starter.listen()
    assert setup.bridge.orders[-1].end == run


def test_what_ended_while_its_machine_was_lost_is_started_anew(setup: Setup) -> None:
    handle, run = setup.start()
    setup.bridge.loses()
    assert handle.is_lost
    setup.bridge.sees(RunView(id=run, code=1))
    again, other = setup.start()
    assert (again.poll(), other != run) == (None, True)


def test_what_nobody_starts_again_is_ended(setup: Setup, clock: list[float]) -> None:
    handle, run = lost_and_found(setup)
    clock[0] += CLAIM_S
    assert handle.is_lost
    assert len(setup.bridge.orders) == 1
    clock[0] += 1
    assert handle.is_lost
    order = setup.bridge.orders[-1]
    assert (order.host, order.end, order.signal, len(setup.bridge.orders)) == ("b", run, "kill", 2)


def test_what_has_moved_is_ended_where_it_was(setup: Setup) -> None:
    handle, run = setup.start()
    setup.bridge.loses()
    assert handle.is_lost
    setup.starter.start(replace(setup.spec, host_name="c"))
    setup.bridge.sees(RunView(id=run))
    setup.starter.listen()
    order = setup.bridge.orders[-1]
    assert (order.host, order.end, order.signal) == ("b", run, "kill")


def test_it_is_lost_with_its_agent(setup: Setup) -> None:
    handle, run = setup.start()
    setup.bridge.sees(RunView(id=run))
    setup.bridge.sees(agent="y")
    assert handle.is_lost


def test_one_that_has_ended_is_not_lost_any_more(setup: Setup) -> None:
    handle, run = setup.start()
    setup.bridge.sees(RunView(id=run, code=0))
    setup.bridge.loses()
    assert (handle.is_lost, handle.poll()) == (False, 0)


def test_ends_are_ordered_until_it_has_ended(setup: Setup) -> None:
    handle, run = setup.start()
    handle.terminate()
    handle.kill()
    assert [(order.end, order.signal) for order in setup.bridge.orders[1:]] == [(run, "terminate"), (run, "kill")]
    setup.bridge.sees(RunView(id=run, code=0))
    assert handle.poll() == 0
    handle.kill()
    assert len(setup.bridge.orders) == 3


def test_a_bridge_that_ends_loses_nothing(setup: Setup) -> None:
    handle, run = setup.start()
    setup.bridge.sees(RunView(id=run))
    assert handle.poll() is None
    setup.bridge.has_ended = True
    assert (handle.poll(), handle.is_lost) == (None, False)
    assert len(setup.bridges) == 2
    assert setup.bridge.orders == []
    setup.bridge.sees(RunView(id=run, code=4))
    assert handle.poll() == 4


def test_what_nobody_saw_done_is_ordered_again(setup: Setup) -> None:
    handle, run = setup.start()
    handle.terminate()
    setup.bridge.has_ended = True
    assert handle.poll() is None
    started, ended = setup.bridge.orders
    assert started.start is not None
    assert (started.start.id, ended.end) == (run, run)


def test_the_last_words_of_a_bridge_are_heard(setup: Setup) -> None:
    handle, run = setup.start()
    setup.bridge.sees(RunView(id=run, code=5))
    setup.bridge.has_ended = True
    assert handle.poll() == 5
    assert setup.bridge.orders == []


def test_the_router_runs_here(setup: Setup, tmp_path: Path) -> None:
    log = tmp_path / "router.log"
    handle = setup.starter.start(replace(setup.spec, host_name="local", command=("sleep", "600"), log=log))
    assert handle.pid is not None
    assert setup.bridges == []
    handle.kill()
    while handle.poll() is None:
        pass


def test_all_is_ended_through_the_bridge_there_is(setup: Setup) -> None:
    setup.start()
    setup.starter.close()
    assert setup.bridge.orders[1:] == [Order(close=True)]
    assert [bridge.has_ended for bridge in setup.bridges] == [True]


def test_all_is_ended_through_a_new_bridge_where_the_last_one_has_ended(setup: Setup) -> None:
    setup.start()
    setup.bridge.has_ended = True
    setup.starter.close()
    assert [order for bridge in setup.bridges[1:] for order in bridge.orders] == [Order(close=True)]
    assert [bridge.has_ended for bridge in setup.bridges] == [True, True]


@pytest.fixture
def shipping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    """With a server that is sent its checkpoint, and a machine that has been seen."""
    setup = Setup(tmp_path, monkeypatch, files="ship")
    planned: Any = SimpleNamespace(checkpoint=tmp_path / "base")
    setup.spec = replace(setup.spec, planned=planned)
    setup.starter.listen()
    setup.bridge.sees()
    return setup


def test_a_server_awaits_its_files_until_its_agent_has_it(shipping: Setup) -> None:
    handle, run = shipping.start()
    assert handle.awaits_files
    shipping.bridge.sees(RunView(id=run))
    assert not handle.awaits_files


def test_nothing_is_awaited_from_a_lost_machine(shipping: Setup) -> None:
    handle, _ = shipping.start()
    shipping.bridge.loses()
    assert not handle.awaits_files


def test_nothing_is_awaited_from_a_bridge_that_sees_no_machine(shipping: Setup) -> None:
    handle, _ = shipping.start()
    shipping.bridge.has_ended = True
    assert not handle.awaits_files
    shipping.bridge.sees()
    assert handle.awaits_files


def test_where_nothing_is_sent_nothing_is_awaited(setup: Setup) -> None:
    handle, _ = setup.start()
    setup.bridge.sees()
    assert not handle.awaits_files


def test_a_machine_is_lost_until_it_is_seen_again_though_nothing_was_started_there(setup: Setup) -> None:
    assert setup.starter.lost_hosts == set()
    setup.bridge.loses()
    assert setup.starter.lost_hosts == {"b"}
    setup.bridge.sees()
    assert setup.starter.lost_hosts == set()
