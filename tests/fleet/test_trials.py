"""A version of a module on trial in a running fleet, over fake servers: brought, given a share, promoted, withdrawn."""

from __future__ import annotations

import json
from typing import Any

import pytest

from psserve.errors import FleetError
from psserve.fleet.observe.control import stop_fleet
from psserve.fleet.plan.layout import trials_path
from psserve.fleet.run.trials import kept_trials

from .conftest import FakeFleet

ONE = {"prefill-0": [], "decode-b-0": []}
B, A, NEW = {"weights": "b1"}, {"weights": "a1"}, {"weights": "a2"}
TWO = {*ONE, "decode-a-0"}
TRIED = "decode-a-0-v2"


@pytest.fixture
def trying(fleet: FakeFleet) -> FakeFleet:
    """Serves a and b, and has version 7 of a on trial for a tenth of its sessions."""
    fleet.launch(ONE)
    fleet.ready()
    fleet.offer(**{"a": A, "b": B, "a@7": NEW})
    fleet.ask("add", "a")
    assert fleet.ask("try", "a", version=7, share=10)[0] == "version 7 of a is on trial, for 10 % of its sessions"
    return fleet


def entry(fleet: FakeFleet) -> dict[str, Any]:
    """What the router is told of a."""
    modules = json.loads((fleet.run / "router.json").read_text())["modules"]
    found: dict[str, Any] = next(module for module in modules if module["name"] == "a")
    return found


def test_a_version_on_trial_is_served_beside_the_module(trying: FakeFleet) -> None:
    assert trying.served() == {"modules": {"a", "b"}, "servers": {*TWO, TRIED}}
    told = entry(trying)
    assert (told["version"], told["trial"]["version"], told["trial"]["zoo_version"]) == (1, 2, 7)
    before = trying.pid(TRIED)
    trying.ask("try", "a", version=7, share=50)
    assert (entry(trying)["trial"]["share"], trying.pid(TRIED)) == (50.0, before)
    with pytest.raises(FleetError, match="version 7 of a is on trial"):
        trying.ask("try", "a", version=8)


def test_a_withdrawn_version_leaves_the_module_as_it_was(trying: FakeFleet) -> None:
    before = trying.pid("decode-a-0")
    assert trying.ask("withdraw", "a", version=6)[0] == "version 6 is not on trial"
    assert trying.ask("withdraw", "a", version=7)[0] == "version 7 of a is on trial no more"
    trying.until(lambda: TRIED not in trying.names())
    assert trying.served() == {"modules": {"a", "b"}, "servers": TWO}
    assert (entry(trying)["trial"], trying.pid("decode-a-0")) == (None, before)
    assert trying.ask("withdraw", "a")[0] == "no version of a is on trial"
    assert [path.name for path in trying.run.glob("checkpoints/a*")] == ["a"]


def test_a_promoted_version_goes_on_with_the_servers_it_has(trying: FakeFleet) -> None:
    before = trying.pid(TRIED)
    trying.offer(a=NEW, b=B)
    assert trying.ask("update", "a")[0] == "a is served with the weights that were on trial"
    trying.until(lambda: "decode-a-0" not in trying.names())
    assert trying.served() == {"modules": {"a", "b"}, "servers": {*ONE, TRIED}}
    assert (entry(trying)["version"], entry(trying)["trial"], trying.pid(TRIED)) == (2, None, before)
    assert trying.ask("update", "a")[0] == "a is served with these weights already"


def test_other_weights_end_a_trial(trying: FakeFleet) -> None:
    trying.offer(a={"weights": "a3"}, b=B)
    done, told = trying.ask("update", "a")
    assert (done, "version 7 of a is on trial no more" in told) == ("a is served with its new weights", True)
    trying.until(lambda: trying.served()["servers"] == {*ONE, TRIED})
    assert entry(trying)["trial"] is None


def test_a_reload_leaves_a_trial_alone(trying: FakeFleet) -> None:
    trying.offer(a=A | {"task": "more"}, b=B)
    trying.ask("reload")
    assert (entry(trying)["task"], entry(trying)["trial"]["zoo_version"]) == ("more", 7)


def test_a_removed_module_ends_its_trial(trying: FakeFleet) -> None:
    trying.ask("remove", "a")
    trying.until(lambda: trying.served() == {"modules": {"b"}, "servers": set(ONE)})


def test_a_version_that_cannot_start_changes_nothing(trying: FakeFleet) -> None:
    trying.ask("withdraw", "a")
    before = entry(trying)
    trying.offer(**{"a": A, "b": B, "a@8": {"weights": "a3", "server": ["--crash", "no such tensor"]}, "a@9": A})
    with pytest.raises(FleetError, match="no such tensor"):
        trying.ask("try", "a", version=8)
    with pytest.raises(FleetError, match="a is served with these weights already: version 9 has no others"):
        trying.ask("try", "a", version=9)
    with pytest.raises(FleetError, match="c is not served"):
        trying.ask("try", "c", version=1)
    trying.until(lambda: trying.served()["servers"] == TWO)
    assert entry(trying) == before


@pytest.fixture
def ended(fleet: FakeFleet) -> FakeFleet:
    """Had version 7 of a on trial when it was stopped."""
    fleet.launch({**ONE, "decode-a-0": []})
    fleet.ready()
    fleet.offer(**{"a": A, "b": B, "a@7": NEW})
    fleet.ask("try", "a", version=7, share=10, shadow=True)
    stop_fleet(fleet.zoo)
    fleet.output()
    return fleet


def again(fleet: FakeFleet) -> None:
    """The zoo's next fleet, once it takes changes."""
    fleet.launch({**ONE, "decode-a-0": []})
    fleet.ready()
    fleet.ask("withdraw", "b")  # whose turn comes when trials were taken up


def test_the_next_fleet_takes_up_a_trial(ended: FakeFleet) -> None:
    again(ended)
    assert ended.served() == {"modules": {"a", "b"}, "servers": {*TWO, TRIED}}
    told = entry(ended)["trial"]
    assert (told["zoo_version"], told["share"], told["shadow"]) == (7, 10.0, True)
    assert ended.ask("withdraw", "a")[0] == "version 7 of a is on trial no more"
    assert kept_trials(ended.run) == ()
    stop_fleet(ended.zoo)
    assert "psserve: version 7 of a is on trial again" in ended.output()


def test_a_killed_fleets_trial_is_taken_up_too(trying: FakeFleet) -> None:
    assert trying.supervisor is not None
    trying.supervisor.kill()
    trying.until_all_gone()
    assert [str(trial) for trial in kept_trials(trying.run)] == ["version 7 of a"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"a@7": {"weights": "a2", "server": ["--crash", "no such tensor"]}}, "no such tensor"),
        ({"a@7": {"weights": "a2", "unplanned": "GPU 0 is full"}}, "GPU 0 is full"),
    ],
)
def test_a_trial_that_cannot_be_taken_up_is_named(ended: FakeFleet, changed: dict[str, Any], reason: str) -> None:
    ended.offer(**({"a": A, "b": B} | changed))
    again(ended)
    assert (entry(ended)["trial"], kept_trials(ended.run)) == (None, ())
    stop_fleet(ended.zoo)
    (said,) = [line for line in ended.output().splitlines() if "version 7 of a is on trial no more" in line]
    assert said.startswith("psserve: warning: ")
    assert reason in said


def test_a_trial_beside_another_version_is_not_taken_up(ended: FakeFleet) -> None:
    (kept,) = kept_trials(ended.run)
    trials_path(ended.run).write_text(f"[{kept.model_copy(update={'beside': 6}).model_dump_json()}]")
    again(ended)
    assert entry(ended)["trial"] is None
    stop_fleet(ended.zoo)
    assert "version 7 of a is on trial no more: version 1 is served now, and no longer version 6" in ended.output()
