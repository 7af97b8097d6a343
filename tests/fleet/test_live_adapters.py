"""Adapters that come, change and go while their servers serve: what these are told, and what a failure leaves."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from psserve.errors import FleetError, NotRunning
from psserve.fleet.observe.control import live_state

from .conftest import FakeFleet

A, B = {"weights": "a1", "adapter": True}, {"weights": "b1", "adapter": True}
GROUP = "decode-adapters-0"


def launch(fleet: FakeFleet, *more: str, **servers: list[str]) -> None:
    """A fleet with the adapter a, and what else is asked for; its zoo also has b."""
    loads = ["--loads", str(fleet.zoo / "loads")]
    fleet.launch({"prefill-0": [], GROUP: [*loads, *more], **servers}, adapters=["a"])
    fleet.ready()
    fleet.offer(a=A, b=B)


def told(fleet: FakeFleet) -> list[str]:
    """What the servers were told of adapters."""
    path = fleet.zoo / "loads"
    return path.read_text().splitlines() if path.exists() else []


def links(fleet: FakeFleet) -> dict[str, str]:
    """The fleet's folder: name -> weights."""
    folder = fleet.run / "adapters"
    return {link.name: link.readlink().name for link in folder.iterdir()} if folder.exists() else {}


def adapters(fleet: FakeFleet) -> dict[str, str]:
    """Module -> adapter that the router gives its requests."""
    config = json.loads((fleet.run / "router.json").read_text())
    return {module["name"]: module["adapter"] for module in config["modules"]}


def hold(fleet: FakeFleet, **requests: int) -> None:
    """Requests in flight that have the first version of an adapter."""
    new = Path(f"{fleet.run}/router.json.held.new")
    new.write_text(json.dumps({f"{name}@1": count for name, count in requests.items()}))
    new.rename(fleet.run / "router.json.held")


def test_add_update_remove_are_loads_and_unloads(fleet: FakeFleet) -> None:
    launch(fleet)
    before = fleet.processes()

    assert fleet.ask("add", "b") == ("b is served", ["b@1: loaded"])
    assert (adapters(fleet), links(fleet), told(fleet)) == ({"a": "a@1", "b": "b@1"}, {"b@1": "b1"}, ["load b@1"])
    assert fleet.ask("add", "b")[0] == "b is served already"

    fleet.offer(a=A, b=B | {"weights": "b2"})
    assert fleet.ask("update", "b") == ("b is served with its new weights", ["b@2: loaded"])
    assert adapters(fleet)["b"] == "b@2"
    fleet.until(lambda: told(fleet)[1:] == ["load b@2", "unload b@1"])
    assert links(fleet) == {"b@2": "b2"}

    assert fleet.ask("remove", "b")[0] == "b is served no more"
    fleet.until(lambda: told(fleet)[3:] == ["unload b@2"])
    assert (adapters(fleet), links(fleet)) == ({"a": "a@1"}, {})
    assert fleet.processes() == before


def test_a_name_is_never_used_twice(fleet: FakeFleet) -> None:
    launch(fleet)
    for _ in range(2):
        fleet.ask("add", "b")
        fleet.ask("remove", "b")
    fleet.until(lambda: told(fleet).count("unload b@2") == 1)
    assert sorted(told(fleet)) == ["load b@1", "load b@2", "unload b@1", "unload b@2"]


def test_a_name_of_the_launch_is_never_used_again(fleet: FakeFleet) -> None:
    """Requests of before may still have it."""
    launch(fleet)
    fleet.ask("add", "b")
    hold(fleet, a=1)
    fleet.ask("remove", "a")
    assert fleet.ask("add", "a") == ("a is served", ["a@2: loaded"])
    hold(fleet)
    fleet.until(lambda: "unload a@1" in told(fleet))
    assert told(fleet) == ["load b@1", "load a@2", "unload a@1"]


def test_the_old_version_stays_until_its_last_request_ends(fleet: FakeFleet) -> None:
    launch(fleet)
    hold(fleet, a=1)
    fleet.offer(a=A | {"weights": "a2"}, b=B)
    assert fleet.ask("update", "a")[0] == "a is served with its new weights"
    assert fleet.ask("add", "b")[0] == "b is served"
    assert told(fleet) == ["load a@2", "load b@1"]
    hold(fleet)
    fleet.until(lambda: told(fleet)[2:] == ["unload a@1"])


def test_what_servers_cannot_load_changes_nothing(fleet: FakeFleet) -> None:
    launch(fleet, "--unloadable", "b@1")
    with pytest.raises(FleetError, match=r"decode-adapters-0: b@1 has wrong shapes"):
        fleet.ask("add", "b")
    assert (adapters(fleet), links(fleet)) == ({"a": "a@1"}, {})
    assert told(fleet) == ["load b@1", "unload b@1"]
    assert fleet.ask("add", "b")[0] == "b is served"
    assert adapters(fleet)["b"] == "b@2"


def test_a_server_that_is_down_keeps_nobody_from_changing(fleet: FakeFleet) -> None:
    flag = fleet.zoo / "broken"
    launch(fleet, "--crash-if", str(flag))
    flag.touch()
    os.kill(fleet.pid(GROUP), signal.SIGKILL)
    fleet.until(lambda: fleet.restarts(GROUP) > 0)
    done, said = fleet.ask("add", "b")
    assert done == "b is served"
    assert said == [
        "b@1: no server of adapters answers now: it is loaded, and tried, when the first request for it comes"
    ]
    assert (links(fleet), told(fleet)) == ({"b@1": "b1"}, [])
    flag.unlink()
    fleet.until(lambda: fleet.is_state(GROUP, "ready"))


def test_a_server_that_dies_meanwhile_is_no_refusal(fleet: FakeFleet) -> None:
    other = "decode-adapters-1"
    launch(fleet, **{other: ["--loads", str(fleet.zoo / "loads"), "--fatal", "b@1"]})
    assert fleet.ask("add", "b") == ("b is served", ["b@1: loaded"])
    assert told(fleet) == ["load b@1"]
    fleet.until(lambda: fleet.restarts(other) == 1 and fleet.is_state(other, "ready"))


def test_the_first_adapter_of_a_fleet_brings_its_server(fleet: FakeFleet) -> None:
    fleet.launch({"prefill-0": [], "decode-m-0": []})
    fleet.ready()
    loads = str(fleet.zoo / "loads")
    fleet.offer(m={"weights": "m1"}, b=B | {"server": ["--loads", loads]}, a=A)
    assert fleet.ask("add", "b")[0] == "b is served"
    assert fleet.ask("add", "a") == ("a is served", ["a@1: loaded"])
    assert fleet.served() == {"modules": {"m", "b", "a"}, "servers": {"prefill-0", "decode-m-0", GROUP}}
    assert told(fleet) == ["load b@1", "load a@1"]


def test_a_module_becomes_an_adapter_and_back(fleet: FakeFleet) -> None:
    launch(fleet, **{"decode-m-0": []})
    fleet.offer(a=A, m={"weights": "m2", "adapter": True})
    assert fleet.ask("update", "m")[0] == "m is served with its new weights"
    fleet.until(lambda: "decode-m-0" not in fleet.names())
    assert (adapters(fleet)["m"], told(fleet)) == ("m@2", ["load m@2"])
    fleet.offer(a=A, m={"weights": "m3"})
    assert fleet.ask("update", "m")[0] == "m is served with its new weights"
    fleet.until(lambda: told(fleet)[1:] == ["unload m@2"])
    assert (adapters(fleet)["m"], links(fleet)) == (None, {})
    assert "decode-m-0-v3" in fleet.names()


def test_what_the_zoo_says_beside_weights_loads_nothing(fleet: FakeFleet) -> None:
    launch(fleet)
    fleet.ask("add", "b")
    fleet.offer(a=A, b=B | {"task": "sums"})
    assert fleet.ask("update", "b")[0] == "b is served with these weights already"
    assert (adapters(fleet)["b"], told(fleet)) == ("b@1", ["load b@1"])


def test_a_fleet_that_ends_leaves_no_folder(fleet: FakeFleet) -> None:
    launch(fleet)
    fleet.ask("add", "b")
    assert fleet.supervisor is not None
    fleet.supervisor.send_signal(signal.SIGTERM)
    fleet.output()
    assert not (fleet.run / "adapters").exists()


def test_what_a_killed_supervisor_left_goes_with_the_next_command(fleet: FakeFleet) -> None:
    launch(fleet)
    fleet.ask("add", "b")
    assert fleet.supervisor is not None
    fleet.supervisor.kill()
    fleet.supervisor.wait()
    with pytest.raises(NotRunning):
        live_state(fleet.zoo)
    assert not (fleet.run / "adapters").exists()
