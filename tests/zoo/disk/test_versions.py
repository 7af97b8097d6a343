"""Versions of a module: kept when it is replaced, gone back to, and what they share stored once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from psserve.errors import UnknownModule, UsageError
from psserve.zoo import Module, Zoo
from psserve.zoo.disk.manifest import MODULE_MANIFEST, FileRecord, write_manifest
from psserve.zoo.disk.transactions import changing
from psserve.zoo.disk.versions import KEEP_VERSIONS, kept_numbers, kept_versions, versions_during
from psserve.zoo.export import export_module
from psserve.zoo.verify import verify
from tests.zoo.killing import EVALUATION, kill_at, roll_alpha_back, roll_alpha_back_without_exchange
from tests.zoo.test_changes import contents


@pytest.fixture
def beta_weights(zoo: Zoo, tmp_path: Path) -> Path:
    """A checkpoint with the weights of beta."""
    return export_module(zoo, zoo.module("beta"), tmp_path / "beta-weights")


def replace(zoo: Zoo, source: Path, keep: int = KEEP_VERSIONS) -> Module:
    """Give alpha other weights."""
    task = zoo.module("alpha").task
    return zoo.add("alpha", source, task, allow_naive=True, replace=True, keep_versions=keep)


def weights(zoo: Zoo, name: str) -> tuple[FileRecord, ...]:
    return zoo.module(name).files


def test_a_replaced_version_is_kept_and_can_be_named(zoo: Zoo, beta_weights: Path) -> None:
    old = weights(zoo, "alpha")
    new = replace(zoo, beta_weights)
    assert (new.version, new.previous, kept_numbers(new.path)) == (2, 1, [1])
    assert weights(zoo, "alpha@1") == old
    assert weights(zoo, "alpha@2") == weights(zoo, "alpha") == weights(zoo, "beta")
    assert not list(verify(zoo))


def test_a_rollback_gives_the_older_weights_back_and_keeps_the_newer(zoo: Zoo, beta_weights: Path) -> None:
    old = zoo.module("alpha")
    replace(zoo, beta_weights)
    back = zoo.roll_back("alpha")
    assert back.model_copy(update={"succession": ()}) == old.model_copy(update={"succession": ()})
    assert kept_numbers(back.path) == [2]
    assert zoo.roll_back("alpha", 2).files == weights(zoo, "beta")
    assert not list(verify(zoo))


def test_a_version_that_was_rolled_back_is_not_gone_back_to(zoo: Zoo, beta_weights: Path, checkpoint: Path) -> None:
    replace(zoo, beta_weights)
    zoo.roll_back("alpha")
    newest = replace(zoo, checkpoint)
    assert (newest.version, newest.previous) == (3, 1)
    assert zoo.roll_back("alpha").version == 1


def test_the_last_versions_are_kept_and_first_the_one_that_was_served(
    zoo: Zoo, beta_weights: Path, checkpoint: Path
) -> None:
    replace(zoo, beta_weights)
    replace(zoo, checkpoint)
    zoo.roll_back("alpha", 1)
    assert kept_numbers(replace(zoo, beta_weights, keep=3).path) == [3, 1]
    assert kept_numbers(replace(zoo, beta_weights, keep=1).path) == []


def test_what_is_not_there_cannot_be_gone_back_to(zoo: Zoo, beta_weights: Path) -> None:
    with pytest.raises(UnknownModule, match="no version before version 1"):
        zoo.roll_back("alpha")
    replace(zoo, beta_weights)
    with pytest.raises(UnknownModule, match=r"no version 7 of module 'alpha' \(versions: 2, 1\)"):
        zoo.roll_back("alpha", 7)
    with pytest.raises(UnknownModule, match="a version is a number"):
        zoo.module("alpha@old")


def test_versions_store_what_they_share_once(zoo: Zoo, tmp_path: Path) -> None:
    same = export_module(zoo, zoo.module("alpha"), tmp_path / "same")
    new = replace(zoo, same)
    kept = zoo.module("alpha@1")
    assert (kept.path / "model.safetensors").samefile(new.path / "model.safetensors")


@pytest.mark.parametrize("store", ["copy", "delta"])
def test_every_store_keeps_its_versions(zoo: Zoo, beta_weights: Path, checkpoint: Path, store: str) -> None:
    zoo.add("math", checkpoint, allow_naive=True, store=store)
    zoo.add("math", beta_weights, allow_naive=True, store=store, replace=True)
    zoo.roll_back("math")
    assert weights(zoo, "math") != weights(zoo, "math@2")
    assert not list(verify(zoo))


@pytest.mark.parametrize("touched", [False, True])
def test_linked_weights_are_kept_while_they_are_what_they_were(
    zoo: Zoo, beta_weights: Path, checkpoint: Path, touched: bool
) -> None:
    zoo.add("math", checkpoint, allow_naive=True, store="link")
    if touched:
        shutil.copyfile(beta_weights / "model.safetensors", checkpoint / "model.safetensors")
    new = zoo.add("math", beta_weights, allow_naive=True, store="link", replace=True)
    assert kept_numbers(new.path) == ([] if touched else [1])


def test_what_a_module_is_for_is_no_versions(zoo: Zoo, beta_weights: Path) -> None:
    zoo.add("alpha", beta_weights, "another task", allow_naive=True, replace=True)
    zoo.rename("alpha", "omega", keep_alias=True)
    back = zoo.roll_back("omega")
    assert (back.version, back.name, back.task, back.aliases) == (1, "omega", "another task", ("alpha",))
    assert not list(verify(zoo))


def test_an_evaluation_of_a_version_stays_with_it(zoo: Zoo, beta_weights: Path) -> None:
    replace(zoo, beta_weights)
    zoo.record_evaluation("alpha@1", EVALUATION)
    assert zoo.module("alpha").evaluations == ()
    assert zoo.roll_back("alpha").evaluations == (EVALUATION,)


@dataclass
class Clock:
    """The time, which stands."""

    now: float


@pytest.fixture
def clock(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A thousand seconds after alpha came."""
    clock = Clock(zoo.module("alpha").created + 1_000)
    monkeypatch.setattr("time.time", lambda: clock.now)
    return clock


def at(zoo: Zoo, time: float) -> set[int | None]:
    return versions_during(zoo.module("alpha"), time, time)


def test_which_version_was_the_module_when_is_known(zoo: Zoo, beta_weights: Path, clock: Clock) -> None:
    start = clock.now
    replace(zoo, beta_weights)
    clock.now += 1_000
    zoo.roll_back("alpha")
    clock.now += 1_000
    zoo.roll_back("alpha", 2)
    zoo.rename("alpha", "omega", keep_alias=True)
    assert [at(zoo, start + after) for after in (-2_000, -500, 500, 1_500, 2_500)] == [{None}, {1}, {2}, {1}, {2}]
    assert versions_during(zoo.module("alpha"), start + 500, start + 1_500) == {1, 2}


def test_a_change_of_versions_belongs_to_both_for_its_second(zoo: Zoo, beta_weights: Path, clock: Clock) -> None:
    replace(zoo, beta_weights)
    assert [at(zoo, clock.now + after) for after in (-1, 0.9, 1.1)] == [{1}, {1, 2}, {2}]


def test_a_version_may_have_been_on_trial_until_the_next_change(
    zoo: Zoo, beta_weights: Path, checkpoint: Path, clock: Clock
) -> None:
    start = clock.now
    zoo.add("alpha", beta_weights, allow_naive=True, replace=True, candidate=True)
    assert [at(zoo, start + after) for after in (-500, 500)] == [{1}, {1, 2}]
    clock.now += 1_000
    replace(zoo, checkpoint)
    assert [at(zoo, start + after) for after in (500, 1_500)] == [{1, 2}, {3}]


def test_a_promoted_version_is_the_module_from_then_on(zoo: Zoo, beta_weights: Path, clock: Clock) -> None:
    start = clock.now
    zoo.add("alpha", beta_weights, allow_naive=True, replace=True, candidate=True)
    clock.now += 1_000
    zoo.roll_back("alpha", 2)
    assert [at(zoo, start + after) for after in (-500, 500, 1_500)] == [{1}, {1, 2}, {2}]


def forget_succession(zoo: Zoo) -> None:
    """Leave the manifest of alpha as an older psserve wrote it."""
    module = zoo.module("alpha")
    write_manifest(module.path / MODULE_MANIFEST, module.manifest.model_copy(update={"succession": ()}))


def test_of_an_older_manifest_the_only_version_was_the_module(zoo: Zoo, beta_weights: Path, clock: Clock) -> None:
    forget_succession(zoo)
    assert at(zoo, clock.now) == {1}
    replace(zoo, beta_weights)
    assert [at(zoo, clock.now + after) for after in (-500, 500)] == [{1}, {2}]


def test_of_an_older_manifest_with_several_versions_it_is_not_known(zoo: Zoo, beta_weights: Path, clock: Clock) -> None:
    replace(zoo, beta_weights)
    zoo.roll_back("alpha")
    forget_succession(zoo)
    assert at(zoo, clock.now + 500) == {None}
    clock.now += 1_000
    zoo.roll_back("alpha", 2)
    assert [at(zoo, clock.now + after) for after in (-500, 500)] == [{None}, {2}]


def test_an_older_version_can_be_deleted_alone(zoo: Zoo, beta_weights: Path) -> None:
    replace(zoo, beta_weights)
    with pytest.raises(UsageError, match="roll it back first"):
        zoo.remove_version("alpha", 2)
    zoo.remove_version("alpha", 1)
    assert kept_numbers(zoo.module("alpha").path) == []


def test_a_damaged_version_is_found_and_harms_no_other(zoo: Zoo, beta_weights: Path, checkpoint: Path) -> None:
    replace(zoo, beta_weights)
    replace(zoo, checkpoint)
    (zoo.module("alpha@1").path / "model.safetensors").unlink()
    assert [finding.name for finding in verify(zoo)] == ["alpha@1"]
    assert [finding.name for finding in verify(zoo, "alpha@2")] == []
    assert [version.version for version in kept_versions(zoo.module("alpha"), zoo.base)] == [2]


@pytest.mark.slow
@pytest.mark.parametrize("change", [roll_alpha_back, roll_alpha_back_without_exchange])
def test_a_rollback_killed_at_any_step_is_done_or_undone(
    zoo: Zoo, beta_weights: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    replace(zoo, beta_weights)
    pristine = shutil.copytree(zoo.path, tmp_path / "pristine")
    outcomes = []
    killed = True
    while killed:
        shutil.rmtree(zoo.path)
        shutil.copytree(pristine, zoo.path)
        killed = kill_at(len(outcomes), change, zoo.path)
        assert not list(verify(zoo))
        with changing(zoo.path):
            pass  # what every next command does first
        outcomes.append(zoo.module("alpha").version == 1)
        assert kept_numbers(zoo.module("alpha").path) == ([2] if outcomes[-1] else [1])
        assert outcomes[-1] or contents(zoo.path) == contents(pristine)
    assert outcomes == sorted(outcomes)
    assert outcomes[-1]
