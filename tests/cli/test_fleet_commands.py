"""launch --dry-run, status and stop as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from psserve.cli.main import cli
from psserve.fleet.state import FleetState, ProcessId, ServerState, read_state, write_state
from psserve.zoo import Zoo
from tests.fleet.fake_zoo import FakeBase, FakeZoo


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "zoo.toml").touch()
    (tmp_path / ".run").mkdir()
    fake: Any = FakeZoo(tmp_path, FakeBase(tmp_path / "base"))
    monkeypatch.setattr(Zoo, "open", lambda path: fake)
    monkeypatch.setenv("PSSERVE_ZOO", str(tmp_path))
    return tmp_path


def psserve(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_dry_run_prints_the_plan_and_starts_nothing(zoo: Path) -> None:
    result = psserve("launch", "--dry-run", "--device", "cpu", "--port", "0", "--modules", "maths, code")
    assert result.exit_code == 0
    assert "# decode-math-0" in result.stdout
    assert list((zoo / ".run").iterdir()) == []


def test_dry_run_as_json(zoo: Path) -> None:
    arguments = ("--device", "cpu", "--port", "0", "--env", "A=b=c", "--json", "--", "--schedule-policy", "lpm")
    servers = json.loads(psserve("launch", "--dry-run", *arguments).stdout)["servers"]
    assert [server["name"] for server in servers] == ["prefill-0", "decode-code-0", "decode-math-0", "router"]
    assert servers[0]["command"][-2:] == ["--schedule-policy", "lpm"]
    assert servers[0]["env"]["A"] == "b=c"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (("--prefill", "0"), 2, "psserve: error: --prefill 0: give at least 1\n"),
        (("--env", "A"), 2, "psserve: error: --env 'A': give NAME=VALUE\n"),
        (("alpha",), 2, "psserve: error: unexpected argument 'alpha'; SGLang's own arguments follow after --\n"),
        (("--modules", "poems"), 1, "psserve: error: --modules: poems\n"),
    ],
)
def test_mistakes_are_one_line(zoo: Path, arguments: tuple[str, ...], exit_code: int, message: str) -> None:
    result = psserve("launch", "--dry-run", "--device", "cpu", *arguments)
    assert (result.exit_code, result.stderr) == (exit_code, message)


def test_unknown_option_is_not_swallowed(zoo: Path) -> None:
    result = psserve("launch", "--dry-run", "--schedule-policy", "lpm")
    assert result.exit_code == 2
    assert "No such option" in result.stderr


@pytest.mark.parametrize("command", ["status", "stop", "chat"])
def test_without_a_fleet_the_command_says_so(zoo: Path, command: str) -> None:
    result = psserve(command)
    assert result.exit_code == 1
    assert result.stderr == f"psserve: error: no fleet runs for the zoo {zoo}; start one with `psserve launch`\n"


@pytest.fixture
def state(zoo: Path) -> FleetState:
    server = ServerState(
        name="decode-math-0",
        role="decode",
        module="math",
        port=41003,
        state="failed",
        restarts=5,
        error="oops",
        log="l",
    )
    state = FleetState(
        url="http://127.0.0.1:1",
        zoo=str(zoo),
        base="b",
        supervisor=ProcessId.own(),
        ready=True,
        tmp_dir="t",
        servers=(server,),
    )
    write_state(zoo / ".run", state)
    return state


def test_status_as_json_is_the_state(state: FleetState) -> None:
    result = psserve("status", "--json")
    assert FleetState.model_validate_json(result.stdout) == state


def test_status_shows_why_a_server_failed(state: FleetState) -> None:
    lines = psserve("status").stdout.splitlines()
    assert lines[2].split() == ["decode-math-0", "failed", "-", "41003", "5", "-"]
    assert lines[3] == "  oops"


def test_launch_beside_a_running_fleet_is_refused(state: FleetState) -> None:
    result = psserve("launch", "--device", "cpu")
    assert result.exit_code == 1
    assert "runs already at http://127.0.0.1:1" in result.stderr


def test_status_cleans_up_after_a_dead_supervisor(zoo: Path, state: FleetState) -> None:
    dead = ProcessId(pid=state.supervisor.pid, ticks=state.supervisor.ticks - 1)
    write_state(zoo / ".run", state.model_copy(update={"supervisor": dead}))
    assert psserve("status").exit_code == 1
    assert read_state(zoo / ".run") is None
