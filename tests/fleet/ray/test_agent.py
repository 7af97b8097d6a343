"""The agent of a machine, with real processes, and without Ray."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from psserve.fleet.ray.messages import HostFacts, Run, RunView, Seen
from tests.waiting import PATIENCE_S, until

SLEEP = ("sleep", "600")


class AgentProcess:
    def __init__(self, owner: str = "first", lease_s: float = 600.0) -> None:
        command = [sys.executable, "-m", "tests.fleet.ray.agent_process", owner, str(lease_s)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call(self, method: str, *arguments: Any, **named: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([method, arguments, named]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, run: Run) -> None:
        self.call("start", run.model_dump(mode="json"))

    def runs(self) -> dict[str, RunView]:
        return {run.id: run for run in Seen.model_validate(self.call("look")).runs}

    def wait(self) -> int:
        return self._process.wait(PATIENCE_S)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self._process.pid).children()

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self._process.pid).children(recursive=True)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def agents() -> Iterator[Any]:
    """Makes agents, which are killed at the end."""
    made = []

    def make(**settings: Any) -> AgentProcess:
        made.append(AgentProcess(**settings))
        return made[-1]

    yield make
    for agent in made:
        agent.kill()


@pytest.fixture
def agent(agents: Any) -> AgentProcess:
    made: AgentProcess = agents()
    return made


def run(tmp_path: Path, id: str, *command: str, **fields: Any) -> Run:
    env = {"PATH": os.environ["PATH"]}
    return Run(id=id, name=fields.pop("name", "a"), command=command, env=env, log=tmp_path / "log", **fields)


def test_it_runs_a_process_and_says_how_it_ended(agent: AgentProcess, tmp_path: Path) -> None:
    agent.start(run(tmp_path, "1", "sh", "-c", "echo said; exit 3"))
    until(lambda: agent.runs()["1"].code is not None)
    assert agent.runs()["1"] == RunView(id="1", code=3, tail=("said",))


def test_a_command_that_is_not_there_is_an_end_like_others(agent: AgentProcess, tmp_path: Path) -> None:
    agent.start(run(tmp_path, "1", "/nowhere/python"))
    (said,) = agent.runs()["1"].tail
    assert agent.runs()["1"].code == 127
    assert said.startswith("psserve: error: a cannot be started: ")


def test_what_cannot_be_started_is_an_end_too(agent: AgentProcess) -> None:
    agent.call("refuse", "1", "a", "the disk is full")
    assert agent.runs() == {"1": RunView(id="1", code=127, tail=("psserve: error: the disk is full",))}


def test_an_order_that_comes_again_starts_nothing(agent: AgentProcess, tmp_path: Path) -> None:
    agent.start(run(tmp_path, "1", *SLEEP))
    before = agent.children()
    agent.start(run(tmp_path, "1", *SLEEP))
    assert agent.children() == before
    assert len(before) == 1


def test_a_process_gives_way_to_the_next_of_its_name(agent: AgentProcess, tmp_path: Path) -> None:
    agent.start(run(tmp_path, "1", *SLEEP))
    (before,) = agent.children()
    agent.start(run(tmp_path, "2", *SLEEP))
    assert not before.is_running()
    ((id, one),) = agent.runs().items()
    assert (id, one.model_copy(update={"memory": None})) == ("2", RunView(id="2"))


def test_it_ends_what_it_is_told_to(agent: AgentProcess, tmp_path: Path) -> None:
    agent.start(run(tmp_path, "1", *SLEEP))
    agent.start(run(tmp_path, "2", *SLEEP, name="b"))
    agent.call("signal", "1", kill=False)
    agent.call("signal", "2", kill=True)
    until(lambda: all(one.code is not None for one in agent.runs().values()))
    assert {id: one.code for id, one in agent.runs().items()} == {"1": -signal.SIGTERM, "2": -signal.SIGKILL}


def test_a_process_finds_its_folder_and_no_old_file(agent: AgentProcess, tmp_path: Path) -> None:
    folder, old = tmp_path / "folder", tmp_path / "old"
    old.touch()
    agent.start(run(tmp_path, "1", *SLEEP, fresh=(old,), folders=(folder,)))
    assert (old.exists(), folder.stat().st_mode & 0o777) == (False, 0o700)
    assert agent.call("close", "first") is True
    assert not folder.exists()


def test_a_folder_that_was_there_stays(agent: AgentProcess, tmp_path: Path) -> None:
    agent.start(run(tmp_path, "1", *SLEEP, folders=(tmp_path,)))
    agent.call("close", "first")
    assert tmp_path.exists()


def test_a_link_in_the_place_of_a_folder_is_not_followed(agent: AgentProcess, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    folder.symlink_to(elsewhere)
    agent.start(run(tmp_path, "1", *SLEEP, folders=(folder,)))
    assert agent.runs()["1"].tail == (f"psserve: error: {folder} is not a folder of this user's own; remove it",)
    assert agent.call("close", "first") is True
    assert (elsewhere.exists(), agent.children()) == (True, [])


def test_nobody_elses_close_ends_anything(agent: AgentProcess, tmp_path: Path) -> None:
    agent.start(run(tmp_path, "1", *SLEEP))
    assert agent.call("close", "second") is False
    assert agent.runs()["1"].code is None
    assert agent.call("close", "first") is True
    assert (agent.runs(), agent.children()) == ({}, [])


def test_another_fleet_gets_it_when_its_own_has_gone_silent(agents: Any, tmp_path: Path) -> None:
    agent = agents(lease_s=600.0)
    agent.start(run(tmp_path, "1", *SLEEP))
    assert agent.call("claim", "second", 600.0) is False
    assert agent.runs()["1"].code is None
    assert agent.call("claim", "first", 0.5) is True  # its own: and from then on it counts as silent after 0.5 s
    (process,) = agent.children()
    until(lambda: agent.call("claim", "second", 600.0))
    assert not process.is_running()
    assert agent.runs() == {}


def test_it_ends_with_its_processes_when_nobody_looks(agents: Any, tmp_path: Path) -> None:
    agent = agents(lease_s=600.0)
    folder = tmp_path / "folder"
    agent.start(run(tmp_path, "1", "sh", "-c", "sleep 600 & setsid sleep 600 & wait", folders=(folder,)))
    until(lambda: len(agent.family()) == 3)
    family = agent.family()
    agent.call("claim", "first", 0.5)
    assert agent.wait() == 0
    assert not psutil.wait_procs(family, timeout=PATIENCE_S)[1]
    assert not folder.exists()


def test_it_tells_what_memory_a_process_uses(agent: AgentProcess, tmp_path: Path) -> None:
    agent.start(run(tmp_path, "1", *SLEEP))
    memory = agent.runs()["1"].memory
    assert memory is not None
    assert memory.main_bytes is not None
    assert memory.main_bytes > 0
    agent.call("signal", "1", kill=True)
    until(lambda: agent.runs()["1"].code is not None)
    assert agent.runs()["1"].memory is None


def test_it_tells_what_a_plan_must_know(agent: AgentProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        facts = HostFacts.model_validate(agent.call("facts", "127.0.0.2", None))
        assert listening.getsockname()[1] in facts.taken_ports
    assert (facts.name, facts.address, facts.nic, facts.wrong) == ("127.0.0.2", "127.0.0.2", "lo", None)
    assert (facts.python, facts.user) == (sys.executable, os.getuid())
    assert facts.machine.cores > 0


def test_its_temporary_folder_is_its_machines_own(agents: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert HostFacts.model_validate(agents().call("facts", "127.0.0.2", None)).tmp == tmp_path


def test_it_tells_what_is_wrong_with_an_interface(agent: AgentProcess) -> None:
    facts = HostFacts.model_validate(agent.call("facts", "127.0.0.1", "eth77"))
    assert str(facts.wrong).startswith("it has no interface eth77 with an IPv4 address, but ")
