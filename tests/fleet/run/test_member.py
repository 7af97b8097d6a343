"""One member's states, with a scripted process."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from psserve.errors import HostLost, StartError
from psserve.fleet.plan.memory import ServerMemory
from psserve.fleet.plan.spec import ProcessSpec, ServerSpec
from psserve.fleet.run.member import Member, RestartPolicy
from psserve.fleet.run.process import Handle, size, tail
from tests.ports import own_ports


class Scripted:
    """A process that ends when told, and the starter that starts it."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.is_lost = False
        self.awaits_files = False
        self.host_is_away = False
        self.code: int | None = None
        self.started: list[ProcessSpec] = []

    def start(self, spec: ProcessSpec) -> Handle:
        if self.host_is_away:
            raise HostLost("the host b is away")
        self.started.append(spec)
        self.log_start = size(spec.log)
        self.code, self.is_lost = None, False
        return self

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None: ...

    def kill(self) -> None: ...

    def tail(self, lines: int) -> list[str]:
        return tail(self.started[-1].log, lines, self.log_start)

    def memory(self) -> None: ...


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
def member(tmp_path: Path, scripted: Scripted) -> Member:
    spec = ServerSpec(
        name="decode-a-0",
        role="decode",
        module="a",
        host="127.0.0.1",
        port=own_ports(1)[0],
        bootstrap_port=None,
        gpus=(),
        memory=ServerMemory(weight_bytes=0, kv_tokens=1024, kv_bytes=0, overhead_bytes=0, kind=""),
        command=("x",),
        env={"A": "1"},
        log=tmp_path / "log",
        rendezvous=tmp_path / "rendezvous",
    )
    return Member(spec, scripted, RestartPolicy(limit=1, first_s=0.0))


def test_only_the_started_process_gets_the_key(member: Member, scripted: Scripted) -> None:
    member.start("sesame")
    assert scripted.started[0].env == {"A": "1", "PSSERVE_WORKER_KEY": "sesame"}
    assert member.spec.env == {"A": "1"}


def test_old_rendezvous_is_removed_before_a_start(member: Member, tmp_path: Path) -> None:
    (tmp_path / "rendezvous").touch()
    member.start("k")
    assert not (tmp_path / "rendezvous").exists()


async def test_ready_needs_the_router_and_an_open_port(member: Member) -> None:
    member.start("k")
    await member.observe("ready", None)  # the router still thinks of the process before this one
    assert member.state == "starting"
    with socket.create_server((member.spec.host, member.spec.port)):
        await member.observe("starting", "no answer yet")
        assert (member.state, member.error) == ("starting", "no answer yet")
        await member.observe("ready", None)
    assert (member.state, member.error) == ("ready", None)


async def test_ready_server_goes_down_and_comes_back(member: Member) -> None:
    member.start("k")
    with socket.create_server((member.spec.host, member.spec.port)):
        await member.observe("ready", None)
        await member.observe("down", "refused")
        assert (member.state, member.error) == ("down", "refused")
        await member.observe("ready", None)
    assert member.state == "ready"


def test_end_is_restarted_then_given_up(member: Member, scripted: Scripted, tmp_path: Path) -> None:
    member.start("k")
    (tmp_path / "log").write_text("RuntimeError: no luck\n")
    scripted.code = 3
    assert member.ended()
    assert not member.ended()  # told once
    assert member.error == "exited with code 3: RuntimeError: no luck"
    assert member.plan_restart() == 0.0
    assert member.restart_due()
    member.start("k")
    scripted.code = -9
    assert member.ended()
    assert member.plan_restart() is None
    assert (member.state, member.restart_due()) == ("failed", False)
    assert member.record().pid is None
    assert member.error == "killed by signal 9: it wrote no log"


def test_a_lost_host_is_no_fault_of_the_server_and_waited_for(member: Member, scripted: Scripted) -> None:
    member.start("k")
    for _ in range(10):
        scripted.is_lost, scripted.host_is_away = True, True
        assert member.ended()
        assert member.plan_restart() == RestartPolicy().lost_s
        assert (member.state, member.error) == ("lost", "its host local is lost")
        with pytest.raises(StartError):
            member.start("k")
        assert member.plan_restart() == RestartPolicy().lost_s
        assert (member.state, member.error) == ("lost", "the host b is away")
        scripted.host_is_away = False
        member.start("k")
        assert (member.state, member.record().restarts) == ("starting", 0)
    scripted.code = 1
    assert member.ended()
    assert member.plan_restart() == 0.0


def test_a_process_of_another_machine_has_no_pid_here(member: Member, scripted: Scripted) -> None:
    member.spec = replace(member.spec, host_name="b", host="10.0.0.2")
    member.start("k")
    record = member.record()
    assert (record.host, record.address, record.pid, record.ticks) == ("b", "10.0.0.2", None, None)
    assert record.may_answer


async def test_dead_process_is_not_ready_whatever_the_router_says(member: Member, scripted: Scripted) -> None:
    member.start("k")
    scripted.code = 1
    assert member.ended()
    member.plan_restart()
    await member.observe("ready", None)
    assert member.state == "restarting"


async def test_what_gets_no_new_requests_is_not_ready_again(member: Member) -> None:
    member.start("k")
    member.state = "draining"
    with socket.create_server((member.spec.host, member.spec.port)):
        await member.observe("ready", None)
    assert member.state == "draining"


async def test_a_process_that_ends_while_its_port_is_tried_is_not_ready(
    member: Member, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    member.start("k")

    def ends(host: str, port: int) -> bool:
        scripted.code = 1
        assert member.ended()
        member.plan_restart()
        return True

    monkeypatch.setattr("psserve.fleet.run.member.listens", ends)
    await member.observe("ready", None)
    assert member.state == "restarting"
