"""A version of a module on trial, as a user types it, with a fleet that answers what it is told to."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import Result

from psserve.contracts.router_config import ModuleConfig, Trial
from psserve.errors import ZooError
from psserve.fleet.run.trials import keep_trials, kept_trials
from psserve.training.conversation import Conversation
from psserve.training.fleet_answers import FleetAnswerer
from psserve.zoo import Zoo
from psserve.zoo.disk import storage
from psserve.zoo.disk.versions import kept_numbers
from psserve.zoo.verify import verify
from tests.certificates import certificate
from tests.waiting import PATIENCE_S

from .answering import answering
from .following import Fleet, serving_alpha
from .zoo_commands import fails, run


@pytest.fixture
def fleet(zoo: Zoo, tmp_path: Path) -> Iterator[Fleet]:
    with serving_alpha(zoo, tmp_path) as fleet:
        yield fleet


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One item, whose answer is 2."""
    path = tmp_path / "items.jsonl"
    path.write_text('{"prompt": "1 + 1?", "completion": "2"}')
    return path


def required(accuracy: str, data: Path) -> tuple[str, ...]:
    """The options that require it."""
    return ("--require-accuracy", accuracy, "--data", str(data), "--scorer", "exact")


def update(fleet: Fleet, other: Path, *options: str) -> Result:
    return run("update-model", "alpha", "--path", other, "--allow-naive", *options, "--zoo", fleet.zoo.path)


def canary(fleet: Fleet, other: Path, *options: str) -> Result:
    return update(fleet, other, "--canary", "10", *options)


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
    fleet: Fleet, other: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, "2", lambda: fleet.has_trial(2, share=0))
    result = canary(fleet, other, *required("1", data))
    assert (result.exit_code, "not recorded" in result.stderr) == (0, False)
    assert [each.right for each in fleet.zoo.module("alpha@2").evaluations] == [1]


def answers(monkeypatch: pytest.MonkeyPatch, text: str, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Let the version on trial, which is alpha@2, say the same to everything; `meanwhile`: done before it does."""

    def answer(self: FleetAnswerer, items: Sequence[Conversation], max_tokens: int) -> list[str]:
        meanwhile()
        self.versions.add("2")
        return [text for _ in items]

    monkeypatch.setattr(FleetAnswerer, "answer", answer)


@pytest.fixture
def other_command(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> Iterator[OtherCommand]:
    monkeypatch.setattr(storage, "LOCK_WAIT_S", 0.1)
    with ExitStack() as held:
        yield OtherCommand(zoo, held)


@dataclass
class OtherCommand:
    """Another command that changes the zoo."""

    zoo: Zoo
    held: ExitStack

    def begin(self) -> None:
        self.held.enter_context(storage.lock(self.zoo.path / ".lock"))

    def end(self) -> None:
        self.held.close()


def test_a_refused_version_that_cannot_be_deleted_now_is_named(
    fleet: Fleet, other: Path, data: Path, monkeypatch: pytest.MonkeyPatch, other_command: OtherCommand
) -> None:
    answers(monkeypatch, "3", other_command.begin)
    result = canary(fleet, other, *required("1", data))
    assert "0 of 1 right (0.0000), and 1 is required: refused, and version 1 stays" in fails(result)
    assert "warning: alpha@2 stays in the zoo until `psserve remove-model alpha@2`: " in result.stderr
    other_command.end()
    assert run("remove-model", "alpha@2", "--yes", "--zoo", fleet.zoo.path).exit_code == 0


def test_an_accepted_version_waits_for_whoever_changes_the_zoo(
    fleet: Fleet, other: Path, data: Path, monkeypatch: pytest.MonkeyPatch, other_command: OtherCommand
) -> None:
    def begin() -> None:
        fleet.has_trial(2, share=0)
        other_command.begin()
        threading.Timer(1, other_command.end).start()

    answers(monkeypatch, "2", begin)
    result = update(fleet, other, *required("1", data))
    assert (result.exit_code, fleet.asked) == (0, ["try alpha@2", "update alpha"]), result.stderr
    module = fleet.zoo.module("alpha")
    assert (module.version, [each.right for each in module.evaluations]) == (2, [1])


def test_an_accepted_version_that_cannot_take_over_is_taken_back(
    fleet: Fleet, other: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def roll_back(*_: object) -> None:
        raise ZooError("the disk is full")

    answers(monkeypatch, "2")
    monkeypatch.setattr(Zoo, "roll_back", roll_back)
    assert "the disk is full" in fails(update(fleet, other, *required("1", data)))
    assert fleet.asked == ["try alpha@2", "withdraw alpha@2"]
    assert kept_numbers(fleet.zoo.module("alpha").path) == []


def test_a_version_that_is_being_measured_becomes_the_module_by_its_accuracy_alone(fleet: Fleet, other: Path) -> None:
    canary(fleet, other)
    fleet.has_trial(2, share=0)
    for command in (("promote", "alpha"), ("rollback", "alpha", "--to", "2")):
        assert "of version 2 of alpha is being measured" in fails(run(*command, "--zoo", fleet.zoo.path), code=2)
    assert "end it with `psserve rollback alpha`" in fails(canary(fleet, other), code=2)
    assert run("rollback", "alpha", "--zoo", fleet.zoo.path).exit_code == 0
    assert (fleet.zoo.module("alpha").version, fleet.asked) == (1, ["try alpha@2", "withdraw alpha"])


def test_a_version_that_has_become_the_module_before_it_is_refused_is_not_said_to_be_gone(
    fleet: Fleet, other: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, "3", lambda: fleet.zoo.roll_back("alpha", 2))
    result = update(fleet, other, *required("1", data))
    assert "1 is required: but it has become alpha meanwhile: `psserve rollback alpha --live`" in fails(result)
    assert "warning: alpha@2 stays in the zoo" in result.stderr
    assert fleet.zoo.module("alpha").version == 2


@pytest.mark.parametrize(
    "signals",
    [
        pytest.param([signal.SIGTERM], id="SIGTERM"),
        pytest.param([signal.SIGHUP, signal.SIGHUP], id="the terminal is closed"),
    ],
)
def test_a_measurement_that_is_ended_by_a_signal_leaves_nothing(
    zoo: Zoo, other: Path, data: Path, tmp_path: Path, signals: list[signal.Signals]
) -> None:
    arguments = ["update-model", "alpha", "--path", other, "--allow-naive", *required("1", data), "--zoo", zoo.path]
    command = [sys.executable, "-c", "from psserve.cli.main import main; main()", *map(str, arguments)]
    with ExitStack() as running:
        silent = running.enter_context(socket.create_server(("127.0.0.1", 0)))
        fleet = running.enter_context(serving_alpha(zoo, tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}"))
        process = running.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        running.callback(process.kill)
        silent.settimeout(PATIENCE_S)
        silent.accept()
        assert process.stderr is not None
        if signal.SIGHUP in signals:
            process.stderr.close()
        for number in signals:
            process.send_signal(number)
        assert process.wait(PATIENCE_S) == 1
    assert fleet.asked == ["try alpha@2", "withdraw alpha@2"]
    assert kept_numbers(zoo.module("alpha").path) == []


def test_a_version_is_measured_by_a_router_whose_certificate_is_its_own(
    zoo: Zoo, other: Path, data: Path, tmp_path: Path
) -> None:
    files = certificate(tmp_path)
    with answering("2", 2, files) as url, serving_alpha(zoo, tmp_path, url) as fleet:
        fleet.tell_router(operator_key="of-the-operator", ssl_certfile=str(files[0]))
        result = canary(fleet, other, *required("1", data))
        assert (result.exit_code, fleet.asked) == (0, ["try alpha@2", "try alpha@2"]), result.stderr


def test_promoted_version_is_the_module(fleet: Fleet, other: Path) -> None:
    canary(fleet, other)
    assert "no version of alpha is on trial" in fails(run("promote", "alpha", "--zoo", fleet.zoo.path), code=2)
    fleet.has_trial(2)
    assert "version 2 of alpha is on trial" in fails(canary(fleet, other), code=2)
    assert run("promote", "alpha", "--zoo", fleet.zoo.path).exit_code == 0
    module = fleet.zoo.module("alpha")
    assert (module.version, module.previous, kept_numbers(module.path)) == (2, 1, [1])
    assert fleet.asked[-1] == "update alpha"


def test_versions_are_deleted_when_one_takes_over(fleet: Fleet, other: Path) -> None:
    for _ in range(3):
        run("update-model", "alpha", "--path", other, "--allow-naive", "--zoo", fleet.zoo.path)
    canary(fleet, other)
    assert kept_numbers(fleet.zoo.module("alpha").path) == [5, 3, 2]
    fleet.has_trial(5)
    run("promote", "alpha", "--keep-versions", "2", "--zoo", fleet.zoo.path)
    assert kept_numbers(fleet.zoo.module("alpha").path) == [4]


def test_rollback_ends_a_trial(fleet: Fleet, other: Path) -> None:
    canary(fleet, other)
    fleet.has_trial(2)
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
        (("--scorer", "exact", "--max-tokens", "8"), "--scorer, --max-tokens: only with --require-accuracy"),
        (("--keep-versions", "3"), "give it to `psserve promote`"),
    ],
)
def test_options_that_fit_no_trial_change_nothing(
    fleet: Fleet, other: Path, options: tuple[str, ...], said: str
) -> None:
    assert said in fails(canary(fleet, other, *options), code=2)
    assert (fleet.asked, kept_numbers(fleet.zoo.module("alpha").path)) == ([], [])
