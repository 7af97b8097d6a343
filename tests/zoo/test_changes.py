"""Removing, renaming and annotating modules: in one step, whatever happens in between."""

from __future__ import annotations

import itertools
import shutil
import threading
from pathlib import Path

import pytest

from psserve.errors import ManifestError, ModuleExists, UnknownModule, UsageError
from psserve.zoo import Zoo
from psserve.zoo.disk.manifest import hash_file
from psserve.zoo.verify import verify

from .full_disk import largest_file
from .killing import EVALUATION, kill_at, record_for_alpha, remove_alpha, rename_alpha

MANIFEST_AND_WEIGHTS = ["model.safetensors", "module.toml"]


def contents(zoo: Path) -> dict[str, str]:
    """Every file of the zoo but its lock -> its hash."""
    files = sorted(path for path in zoo.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(zoo)): hash_file(path) for path in files}


def test_a_removed_module_is_gone(zoo: Zoo) -> None:
    zoo.remove("alpha")
    assert [module.name for module in zoo.modules()] == ["beta"]
    assert not any("alpha" in path for path in contents(zoo.path))


@pytest.mark.parametrize("damage", ["name = ", ""])
def test_a_damaged_module_can_be_removed(zoo: Zoo, damage: str) -> None:
    (zoo.path / "modules" / "alpha" / "module.toml").write_text(damage)
    zoo.remove("alpha")
    assert zoo.scan().damaged == {}


def test_a_module_can_be_removed_from_a_full_disk(zoo: Zoo) -> None:
    with largest_file(0):
        with pytest.raises(OSError, match="File too large"):
            (zoo.path / "written").write_text("text")
        zoo.remove("alpha")
    assert [module.name for module in zoo.modules()] == ["beta"]


def test_of_a_linked_directory_the_link_is_removed(zoo: Zoo, tmp_path: Path) -> None:
    directory = zoo.path / "modules" / "alpha"
    directory.rename(tmp_path / "elsewhere")
    directory.symlink_to(tmp_path / "elsewhere")
    zoo.remove("alpha")
    assert [module.name for module in zoo.modules()] == ["beta"]
    assert (tmp_path / "elsewhere" / "module.toml").exists()


def test_what_was_rebuilt_of_a_module_goes_with_it(zoo: Zoo) -> None:
    for name in ("alpha", "beta"):
        (zoo.path / ".rebuilt" / name).mkdir(parents=True)
    zoo.remove("alpha")
    assert [path.name for path in (zoo.path / ".rebuilt").iterdir()] == ["beta"]


def test_a_renamed_module_keeps_all_but_its_name(zoo: Zoo) -> None:
    before = zoo.module("alpha")
    after = zoo.rename("alpha", "omega")
    assert [module.name for module in zoo.modules()] == ["beta", "omega"]
    assert after == before.model_copy(update={"name": "omega", "path": zoo.path / "modules" / "omega"})
    assert sorted(path.name for path in after.path.iterdir()) == MANIFEST_AND_WEIGHTS


def test_the_old_name_can_stay_as_an_alias(zoo: Zoo) -> None:
    zoo.rename("alpha", "omega", keep_alias=True)
    assert zoo.module("alpha").name == "omega"


def test_a_module_can_take_its_own_alias_as_name(zoo: Zoo) -> None:
    zoo.rename("alpha", "omega", keep_alias=True)
    assert zoo.rename("omega", "alpha").aliases == ()


@pytest.mark.parametrize(
    ("new", "error"),
    [("beta", ModuleExists), ("alpha", ModuleExists), ("qwen3-tiny", ModuleExists), ("A!", UsageError)],
)
def test_a_name_that_is_taken_or_bad_is_refused(zoo: Zoo, new: str, error: type[Exception]) -> None:
    before = contents(zoo.path)
    with pytest.raises(error):
        zoo.rename("alpha", new)
    assert contents(zoo.path) == before


def test_a_module_is_never_renamed_over_something_else(zoo: Zoo) -> None:
    (zoo.path / "modules" / "omega").mkdir()
    with pytest.raises(ModuleExists, match="move it away"):
        zoo.rename("alpha", "omega")


def test_a_damaged_module_is_not_renamed(zoo: Zoo) -> None:
    (zoo.path / "modules" / "alpha" / "module.toml").write_text("name = ")
    with pytest.raises(ManifestError, match="not TOML"):
        zoo.rename("alpha", "omega")


def test_an_alias_is_no_name_to_remove_or_rename_by(zoo: Zoo) -> None:
    zoo.rename("alpha", "omega", keep_alias=True)
    with pytest.raises(UnknownModule, match="'alpha' is an alias of module 'omega'"):
        zoo.remove("alpha")
    with pytest.raises(UnknownModule, match="give the module's own name"):
        zoo.rename("alpha", "gamma")


def test_an_unknown_module_is_an_error(zoo: Zoo) -> None:
    with pytest.raises(UnknownModule, match="alpha, beta"):
        zoo.remove("../beta")


def test_an_evaluation_gives_way_to_a_later_one_of_the_same_conditions_alone(zoo: Zoo) -> None:
    other = EVALUATION.model_copy(update={"max_tokens": EVALUATION.max_tokens + 1})
    again = EVALUATION.model_copy(update={"date": EVALUATION.date + 1, "right": EVALUATION.right - 1})
    for evaluation in (EVALUATION, other, again):
        zoo.record_evaluation("alpha", evaluation)
    assert zoo.module("alpha").evaluations == (other, again)


def test_evaluations_are_kept_in_order_and_an_import_starts_anew(zoo: Zoo, checkpoint: Path) -> None:
    later = EVALUATION.model_copy(update={"date": 2, "right": 4, "scorer": "number"})
    for evaluation in (EVALUATION, later):
        zoo.record_evaluation("alpha", evaluation)
    assert zoo.module("alpha").evaluations == (EVALUATION, later)
    assert zoo.module("alpha").latest_evaluation == later
    assert zoo.add("alpha", checkpoint, allow_naive=True, replace=True).evaluations == ()


def test_a_kill_at_any_step_of_a_removal_loses_nothing_else(zoo: Zoo, tmp_path: Path) -> None:
    whole = contents(zoo.path)
    for step in itertools.count():
        copy = shutil.copytree(zoo.path, tmp_path / str(step))
        killed = kill_at(step, remove_alpha, copy)
        assert not list(verify(Zoo.open(copy)))
        left = [module.name for module in Zoo.open(copy).modules()]
        assert left in (["alpha", "beta"], ["beta"])
        record_for_beta_and_check(copy, whole, gone=None if "alpha" in left else "alpha")
        if not killed:
            break
    assert (left, step > 3) == (["beta"], True)


def test_a_kill_at_any_step_of_a_renaming_leaves_one_whole_module(zoo: Zoo, tmp_path: Path) -> None:
    for step in itertools.count():
        copy = shutil.copytree(zoo.path, tmp_path / str(step))
        killed = kill_at(step, rename_alpha, copy)
        assert not list(verify(Zoo.open(copy)))
        names = [module.name for module in Zoo.open(copy).modules()]
        assert names in (["alpha", "beta"], ["beta", "omega"])
        Zoo.open(copy).record_evaluation("beta", EVALUATION)  # the next change cleans up
        module = next(module for module in Zoo.open(copy).modules() if module.name != "beta")
        assert (Zoo.open(copy).scan().damaged, module.name in names) == ({}, True)
        assert sorted(path.name for path in module.path.iterdir()) == MANIFEST_AND_WEIGHTS
        assert module.files == zoo.module("alpha").files
        if not killed:
            break
    assert (names, step > 5) == (["beta", "omega"], True)


def test_a_kill_at_any_step_of_a_record_leaves_a_sound_manifest(zoo: Zoo, tmp_path: Path) -> None:
    for step in itertools.count():
        copy = shutil.copytree(zoo.path, tmp_path / str(step))
        killed = kill_at(step, record_for_alpha, copy)
        assert Zoo.open(copy).module("alpha").evaluations in ((), (EVALUATION,))
        Zoo.open(copy).record_evaluation("beta", EVALUATION)
        assert contents(copy).keys() == contents(zoo.path).keys()
        if not killed:
            break
    assert Zoo.open(copy).module("alpha").evaluations == (EVALUATION,)


def record_for_beta_and_check(zoo: Path, whole: dict[str, str], gone: str | None) -> None:
    """After one more change, the zoo is `whole` again but for the module `gone` and for what that change wrote."""
    Zoo.open(zoo).record_evaluation("beta", EVALUATION)
    expected = {path: content for path, content in whole.items() if not (gone and path.startswith(f"modules/{gone}/"))}
    changed = {"modules/beta/module.toml": hash_file(zoo / "modules" / "beta" / "module.toml")}
    assert contents(zoo) == expected | changed


def test_of_two_removals_at_once_one_succeeds(zoo: Zoo) -> None:
    results: list[object] = []

    def remove() -> None:
        try:
            results.append(Zoo.open(zoo.path).remove("alpha"))
        except UnknownModule as error:
            results.append(type(error))

    threads = [threading.Thread(target=remove) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, results)) == [str(UnknownModule), "None"]
