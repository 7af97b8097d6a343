"""Commands that a running fleet follows, with a fleet that answers what it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from psserve.fleet.run.protocol import control_path
from psserve.zoo import Zoo

from .following import Fleet, serving_alpha
from .zoo_commands import fails, run


@pytest.fixture
def fleet(zoo: Zoo, tmp_path: Path) -> Iterator[Fleet]:
    with serving_alpha(zoo, tmp_path) as fleet:
        yield fleet


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


def test_removed_module_leaves_the_fleet_first(fleet: Fleet) -> None:
    assert run("remove-model", "alpha", "--yes", "--live", "--zoo", fleet.zoo.path).exit_code == 0
    assert (fleet.asked, fleet.names) == (["remove alpha"], [["alpha", "beta"]])
    assert [module.name for module in fleet.zoo.modules()] == ["beta"]


def test_module_that_the_fleet_keeps_stays(fleet: Fleet) -> None:
    fleet.fails = "alpha is the only module served"
    assert "the only module served" in fails(run("remove-model", "alpha", "--yes", "--live", "--zoo", fleet.zoo.path))
    assert "say --live" in fails(run("remove-model", "alpha", "--yes", "--zoo", fleet.zoo.path))
    assert fleet.zoo.module("alpha")


def test_a_version_is_removed_from_the_zoo_alone(fleet: Fleet) -> None:
    said = fails(run("remove-model", "alpha@1", "--yes", "--live", "--zoo", fleet.zoo.path), code=2)
    assert (said, fleet.asked) == (
        "psserve: error: --live is for whole modules: `psserve rollback alpha` ends a trial",
        [],
    )


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
