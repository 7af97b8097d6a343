"""Commands that a running fleet follows, with a fleet that answers what it is told to."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import Result

from psserve.contracts.router_config import ModuleConfig, Trial
from psserve.fleet.live.control_socket import ControlSocket, Tell
from psserve.fleet.run.protocol import ChangeReply, ChangeRequest, control_path
from psserve.fleet.run.state import ServerState
from psserve.fleet.run.trials import keep_trials, kept_trials
from psserve.training.conversation import Conversation
from psserve.training.fleet_answers import FleetAnswerer
from psserve.zoo import Zoo
from psserve.zoo.disk.versions import kept_numbers
from psserve.zoo.verify import verify

from .zoo_commands import fails, pretend_serving, run


@dataclass
class Fleet:
    """Serves alpha, and answers each request for a change with `fails` or success."""

    zoo: Zoo
    fails: str | None = None
    asked: list[str] = field(default_factory=list)
    names: list[list[str]] = field(default_factory=list)
    """The zoo's modules when it was asked."""

    async def make(self, request: ChangeRequest, tell: Tell) -> ChangeReply:
        self.asked.append(request.title)
        self.names.append([module.name for module in self.zoo.modules()])
        tell("working")
        return ChangeReply(error=self.fails) if self.fails else ChangeReply(done="followed")


@pytest.fixture
def fleet(zoo: Zoo, tmp_path: Path) -> Iterator[Fleet]:
    server = ServerState(name="decode-alpha-0", role="decode", module="alpha", port=1, state="ready", log="")
    pretend_serving(zoo, server, tmp_dir=str(tmp_path))
    fleet, loop = Fleet(zoo), asyncio.new_event_loop()
    socket = ControlSocket(control_path(tmp_path), fleet.make)
    loop.run_until_complete(socket.open())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield fleet
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(socket.close())
    loop.close()


@pytest.fixture
def other(zoo: Zoo, tmp_path: Path) -> Path:
    """Weights of beta as a checkpoint."""
    shutil.copytree(zoo.base.path, tmp_path / "other")
    shutil.copytree(zoo.module("beta").path, tmp_path / "other", dirs_exist_ok=True)
    (tmp_path / "other" / "module.toml").unlink()
    return tmp_path / "other"


def test_added_module_is_served(fleet: Fleet, other: Path) -> None:
    result = run("add-model", "gamma", "--path", other, "--allow-naive", "--live", "--zoo", fleet.zoo.path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines()[-2:] == ["fleet: working", "fleet: followed"]
    assert (fleet.asked, fleet.names) == (["add gamma"], [["alpha", "beta", "gamma"]])


def test_failed_change_says_what_became_of_the_zoo(fleet: Fleet, other: Path) -> None:
    fleet.fails = "decode-gamma-0 exited with code 1: ValueError: boom (log: L)"
    said = fails(run("add-model", "gamma", "--path", other, "--allow-naive", "--live", "--zoo", fleet.zoo.path))
    assert said == (
        f"psserve: error: {fleet.fails}: the zoo is changed, and the fleet serves as before; "
        "when the cause is gone: `psserve reload`"
    )
    assert fleet.zoo.module("gamma")


def test_update_keeps_what_is_not_said_anew(fleet: Fleet, other: Path) -> None:
    zoo = fleet.zoo
    zoo.add("alpha", other, "sums", ("1+1?",), ("first",), allow_naive=True, replace=True, store="delta")
    run("update-model", "alpha", "--path", other, "--allow-naive", "--task", "more", "--live", "--zoo", zoo.path)
    module = zoo.module("alpha")
    assert (module.task, module.examples, module.aliases, module.store) == ("more", ("1+1?",), ("first",), "delta")
    assert fleet.asked == ["update alpha"]


def test_update_without_live_says_that_the_fleet_goes_on(fleet: Fleet, other: Path) -> None:
    result = run("update-model", "alpha", "--path", other, "--allow-naive", "--zoo", fleet.zoo.path)
    assert result.exit_code == 0
    assert "the running fleet goes on with the old weights" in result.stderr
    assert fleet.asked == []


def test_updated_module_that_is_not_served_is_added(fleet: Fleet, other: Path) -> None:
    run("update-model", "beta", "--path", other, "--allow-naive", "--live", "--zoo", fleet.zoo.path)
    assert fleet.asked == ["add beta"]


def test_rolled_back_module_is_replaced_in_the_fleet(fleet: Fleet, other: Path) -> None:
    run("update-model", "alpha", "--path", other, "--allow-naive", "--zoo", fleet.zoo.path)
    said = run("rollback", "alpha", "--zoo", fleet.zoo.path).stderr
    assert "the running fleet goes on with the old weights" in said
    run("rollback", "alpha", "--to", "2", "--live", "--zoo", fleet.zoo.path)
    assert (fleet.asked, fleet.zoo.module("alpha").version) == (["update alpha"], 2)


def canary(fleet: Fleet, other: Path, *options: str) -> Result:
    path = ("--path", other, "--allow-naive", "--canary", "10")
    return run("update-model", "alpha", *path, *options, "--zoo", fleet.zoo.path)


def has_trial(fleet: Fleet, version: int) -> None:
    """Let the fleet's router have been told that a version of alpha is on trial."""
    modules = [{"name": "alpha", "trial": {"zoo_version": version}}, {"name": "beta"}]
    (fleet.zoo.path / ".run" / "router.json").write_text(json.dumps({"modules": modules}))


def test_canary_leaves_the_module_and_has_the_fleet_try_the_version(fleet: Fleet, other: Path) -> None:
    before = fleet.zoo.module("alpha")
    result = canary(fleet, other)
    assert (result.exit_code, fleet.asked) == (0, ["try alpha@2"])
    assert "psserve promote alpha" in result.stderr
    assert fleet.zoo.module("alpha") == before
    assert fleet.zoo.module("alpha@2").files == fleet.zoo.module("beta").files
    assert not list(verify(fleet.zoo))


def test_canary_that_the_fleet_cannot_serve_leaves_nothing(fleet: Fleet, other: Path) -> None:
    fleet.fails = "GPU 0 is full"
    assert "GPU 0 is full" in fails(canary(fleet, other))
    assert kept_numbers(fleet.zoo.module("alpha").path) == []
    assert fleet.asked == ["try alpha@2", "withdraw alpha@2"]


def test_a_version_that_proves_itself_has_its_score_recorded(
    fleet: Fleet, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(self: FleetAnswerer, items: Sequence[Conversation], max_tokens: int) -> list[str]:
        has_trial(fleet, 2)
        self.versions.add("2")
        return ["2" for _ in items]

    data = tmp_path / "items.jsonl"
    data.write_text('{"prompt": "1 + 1?", "completion": "2"}')
    monkeypatch.setattr(FleetAnswerer, "answer", answer)
    result = canary(fleet, other, "--require-accuracy", "1", "--data", str(data), "--scorer", "exact")
    assert (result.exit_code, "not recorded" in result.stderr) == (0, False)
    assert [each.right for each in fleet.zoo.module("alpha@2").evaluations] == [1]


def test_promoted_version_is_the_module(fleet: Fleet, other: Path) -> None:
    canary(fleet, other)
    assert "no version of alpha is on trial" in fails(run("promote", "alpha", "--zoo", fleet.zoo.path), code=2)
    has_trial(fleet, 2)
    assert "version 2 of alpha is on trial" in fails(canary(fleet, other), code=2)
    assert run("promote", "alpha", "--zoo", fleet.zoo.path).exit_code == 0
    module = fleet.zoo.module("alpha")
    assert (module.version, module.previous, kept_numbers(module.path)) == (2, 1, [1])
    assert fleet.asked[-1] == "update alpha"


def test_rollback_ends_a_trial(fleet: Fleet, other: Path) -> None:
    canary(fleet, other)
    has_trial(fleet, 2)
    assert run("rollback", "alpha", "--zoo", fleet.zoo.path).exit_code == 0
    assert (fleet.asked[-1], fleet.zoo.module("alpha").version) == ("withdraw alpha", 1)


def test_rollback_ends_a_trial_that_a_stopped_fleet_had(zoo: Zoo) -> None:
    run_dir = zoo.path / ".run"
    run_dir.mkdir(exist_ok=True)
    trial = Trial(version=2, zoo_version=2, share=10)
    keep_trials(run_dir, [ModuleConfig(name="alpha", zoo_version=1, trial=trial)])
    result = run("rollback", "alpha", "--zoo", zoo.path)
    assert (result.exit_code, result.stderr) == (0, "version 2 of alpha is on trial no more\n")
    assert kept_trials(run_dir) == ()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--task", "more"), "the module's, and no version's"),
        (("--require-accuracy", "0.9"), "needs --data and --scorer"),
        (("--scorer", "exact"), "for --require-accuracy"),
    ],
)
def test_options_that_fit_no_trial_change_nothing(
    fleet: Fleet, other: Path, options: tuple[str, ...], said: str
) -> None:
    assert said in fails(canary(fleet, other, *options), code=2)
    assert (fleet.asked, kept_numbers(fleet.zoo.module("alpha").path)) == ([], [])


def test_removed_module_leaves_the_fleet_first(fleet: Fleet) -> None:
    assert run("remove-model", "alpha", "--yes", "--live", "--zoo", fleet.zoo.path).exit_code == 0
    assert (fleet.asked, fleet.names) == (["remove alpha"], [["alpha", "beta"]])
    assert [module.name for module in fleet.zoo.modules()] == ["beta"]


def test_module_that_the_fleet_keeps_stays(fleet: Fleet) -> None:
    fleet.fails = "alpha is the only module served"
    assert "the only module served" in fails(run("remove-model", "alpha", "--yes", "--live", "--zoo", fleet.zoo.path))
    assert "say --live" in fails(run("remove-model", "alpha", "--yes", "--zoo", fleet.zoo.path))
    assert fleet.zoo.module("alpha")


def test_reload(fleet: Fleet) -> None:
    assert run("reload", "--zoo", fleet.zoo.path).stderr.splitlines() == ["fleet: working", "fleet: followed"]
    assert fleet.asked == ["reload"]


@pytest.mark.parametrize(
    "command",
    [
        ("add-model", "gamma", "--path", "x"),
        ("update-model", "alpha", "--path", "x"),
        ("remove-model", "alpha"),
        ("rollback", "alpha"),
    ],
)
def test_live_needs_a_fleet_and_changes_nothing_without(zoo: Zoo, command: tuple[str, ...]) -> None:
    assert "no fleet runs" in fails(run(*command, "--live", "--zoo", zoo.path))
    assert [module.name for module in zoo.modules()] == ["alpha", "beta"]


def test_fleet_without_a_socket_takes_no_changes(fleet: Fleet, tmp_path: Path) -> None:
    control_path(tmp_path).unlink()
    said = fails(run("reload", "--zoo", fleet.zoo.path))
    assert said.startswith("psserve: error: the fleet at http://127.0.0.1:30000 takes no changes: No such file")
