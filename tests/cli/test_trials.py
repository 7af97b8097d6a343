"""A version of a module on trial, as a user types it, with a fleet that answers what it is told to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import Result

from psserve.contracts.router_config import ModuleConfig, Trial
from psserve.fleet.run.trials import keep_trials, kept_trials
from psserve.training.conversation import Conversation
from psserve.training.fleet_answers import FleetAnswerer
from psserve.zoo import Zoo
from psserve.zoo.disk.versions import kept_numbers
from psserve.zoo.verify import verify
from tests.certificates import certificate

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


def canary(fleet: Fleet, other: Path, *options: str) -> Result:
    path = ("--path", other, "--allow-naive", "--canary", "10")
    return run("update-model", "alpha", *path, *options, "--zoo", fleet.zoo.path)


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
    def answer(self: FleetAnswerer, items: Sequence[Conversation], max_tokens: int) -> list[str]:
        fleet.has_trial(2)
        self.versions.add("2")
        return ["2" for _ in items]

    monkeypatch.setattr(FleetAnswerer, "answer", answer)
    result = canary(fleet, other, *required("1", data))
    assert (result.exit_code, "not recorded" in result.stderr) == (0, False)
    assert [each.right for each in fleet.zoo.module("alpha@2").evaluations] == [1]


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
        (("--scorer", "exact"), "for --require-accuracy"),
        (("--keep-versions", "3"), "give it to `psserve promote`"),
    ],
)
def test_options_that_fit_no_trial_change_nothing(
    fleet: Fleet, other: Path, options: tuple[str, ...], said: str
) -> None:
    assert said in fails(canary(fleet, other, *options), code=2)
    assert (fleet.asked, kept_numbers(fleet.zoo.module("alpha").path)) == ([], [])
