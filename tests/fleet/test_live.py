"""Changes of a running fleet, over fake servers: what is started, switched and ended, and what a failure leaves."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from psserve.contracts.api_keys import ApiKey, digest_of
from psserve.contracts.router_config import ModuleConfig
from psserve.errors import FleetError, NotRunning
from psserve.fleet.observe.control import change_fleet, live_state
from psserve.fleet.options.key_file import write_keys
from psserve.fleet.run.protocol import ChangeRequest, control_path, short_name

from .conftest import WAIT_S, FakeFleet

TWO = {"prefill-0": [], "decode-a-0": [], "decode-b-0": []}
A, B, C = {"weights": "a1"}, {"weights": "b1"}, {"weights": "c1"}


@pytest.fixture
def running(fleet: FakeFleet) -> FakeFleet:
    """Serves a and b; the zoo also has c."""
    fleet.launch(TWO)
    fleet.ready()
    fleet.offer(a=A, b=B, c=C)
    return fleet


@pytest.fixture
def helper() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def hold(fleet: FakeFleet, **held: int) -> None:
    """Requests in flight on servers, by name with _ for -."""
    new = fleet.run / "router.json.held.new"
    new.write_text(json.dumps({name.replace("_", "-"): count for name, count in held.items()}))
    new.rename(fleet.run / "router.json.held")  # whole at any moment: the router reads it meanwhile


def test_add_update_remove(running: FakeFleet) -> None:
    fleet = running
    before = {name: fleet.pid(name) for name in ("prefill-0", "decode-a-0", "decode-b-0", "router")}

    done, told = fleet.ask("add", "c")
    assert done == "c is served"
    assert [line.split(" after")[0] for line in told] == ["decode-c-0: starting", "decode-c-0: ready"]
    assert fleet.served() == {"modules": {"a", "b", "c"}, "servers": {*TWO, "decode-c-0"}}
    assert fleet.ask("add", "c")[0] == "c is served already"

    fleet.offer(a=A, b=B, c={"weights": "c2"})
    with pytest.raises(FleetError, match="other weights"):
        fleet.ask("add", "c")
    assert fleet.ask("update", "c")[0] == "c is served with its new weights"
    assert fleet.served()["servers"] == {*TWO, "decode-c-0-v2"}
    fleet.until(lambda: "decode-c-0" not in fleet.names())
    assert sorted(path.name for path in (fleet.run / "checkpoints").iterdir()) == ["c~2"]
    assert fleet.ask("update", "c")[0] == "c is served with these weights already"

    assert fleet.ask("remove", "c")[0] == "c is served no more"
    assert fleet.served() == {"modules": {"a", "b"}, "servers": set(TWO)}
    assert fleet.ask("remove", "c")[0] == "c is not served"
    assert {name: fleet.pid(name) for name in before} == before
    assert not any("decode-c" in server.name for server in live_state(fleet.zoo).servers)
    config = fleet.run / "router.json"
    assert (config.stat().st_mode & 0o777, json.loads(config.read_text())["worker_key"]) == (0o600, "sesame")


FAILURES: list[tuple[dict[str, object], str]] = [
    ({"server": ["--crash", "no such tensor"]}, "decode-c-0 exited with code 1: ValueError: no such tensor"),
    ({"unmade": "no space left"}, "the checkpoint of c cannot be made: no space left"),
    ({"unplanned": "GPU 0 is full"}, "GPU 0 is full"),
    ({"damaged": "its manifest is broken"}, "its manifest is broken"),
    ({"bug": True}, "a bug in psserve"),
]


def test_what_fails_leaves_the_fleet_as_it_was(running: FakeFleet) -> None:
    fleet = running
    names, served = fleet.names(), fleet.served()
    modules = json.loads((fleet.run / "router.json").read_text())["modules"]
    for offer, reason in FAILURES:
        fleet.offer(a=A, b=B, c=C | offer)
        with pytest.raises(FleetError, match=reason):
            fleet.ask("add", "c")
        fleet.until(lambda: fleet.names() == names and fleet.served() == served)
        assert json.loads((fleet.run / "router.json").read_text())["modules"] == modules
        assert not list(fleet.run.glob("checkpoints/c*"))
    fleet.offer(a=A, b=B, c=C)
    assert fleet.ask("add", "c")[0] == "c is served"


def test_the_log_of_a_failed_start_is_told(running: FakeFleet) -> None:
    running.offer(a=A, b=B, c=C | {"server": ["--crash", "boom"]})
    told: list[str] = []
    with pytest.raises(FleetError):
        change_fleet(running.zoo, ChangeRequest(command="add", module="c"), told.append)
    assert told[1:] == [
        f"the last lines of {running.run}/logs/decode-c-0.log:",
        "  key: sesame",
        "  Loading weights",
        "  ValueError: boom",
    ]


def test_replaced_server_ends_after_its_last_request(running: FakeFleet, helper: ThreadPoolExecutor) -> None:
    fleet = running
    hold(fleet, decode_a_0=3)
    fleet.offer(a={"weights": "a2"}, b=B)
    change = helper.submit(fleet.ask, "update", "a")
    fleet.until(lambda: fleet.is_state("decode-a-0", "draining"))
    assert {"decode-a-0", "decode-a-0-v2"} <= fleet.served()["servers"]
    states = {server.name: server.state for server in live_state(fleet.zoo).servers}
    assert (states["decode-a-0"], states["decode-a-0-v2"]) == ("draining", "ready")
    hold(fleet)
    assert change.result(WAIT_S)[0] == "a is served with its new weights"
    assert fleet.served()["servers"] == {"prefill-0", "decode-b-0", "decode-a-0-v2"}


def test_requests_that_go_on_too_long_are_ended(fleet: FakeFleet) -> None:
    fleet.launch(TWO, drain_s=0.5)
    fleet.ready()
    hold(fleet, decode_a_0=3)
    done, told = fleet.ask("remove", "a")
    assert done == "a is served no more"
    assert told == ["decode-a-0: requests still run after 0.5 s and are ended", "decode-a-0: ended"]


def test_router_that_is_restarted_in_a_change_follows_it(running: FakeFleet, helper: ThreadPoolExecutor) -> None:
    fleet = running
    (fleet.run / "router.json.deaf").touch()
    change = helper.submit(fleet.ask, "add", "c")
    fleet.until(lambda: "decode-c-0" in fleet.names())
    old = fleet.pid("router")
    os.kill(old, signal.SIGKILL)
    fleet.until(lambda: fleet.is_state("router", "ready") and fleet.pid("router") != old)
    (fleet.run / "router.json.deaf").unlink()
    assert change.result(WAIT_S)[0] == "c is served"
    assert "c" in fleet.served()["modules"]


def test_changes_are_made_one_after_the_other(running: FakeFleet, helper: ThreadPoolExecutor) -> None:
    fleet = running
    hold(fleet, decode_a_0=1)
    first: Future[tuple[str, list[str]]] = helper.submit(fleet.ask, "remove", "a")
    fleet.until(lambda: fleet.is_state("decode-a-0", "draining"))
    told: list[str] = []
    second = helper.submit(change_fleet, fleet.zoo, ChangeRequest(command="add", module="c"), told.append)
    fleet.until(lambda: told == ["add c waits for: remove a"])
    assert not second.done()
    assert "decode-c-0" not in fleet.names()
    hold(fleet)
    assert first.result(WAIT_S)[0] == "a is served no more"
    assert second.result(WAIT_S) == "c is served"


def test_caller_that_leaves_does_not_stop_the_change(running: FakeFleet) -> None:
    with socket.socket(socket.AF_UNIX) as caller, short_name(control_path(running.tmp)) as name:
        caller.connect(name)
        caller.sendall(b'{"command": "add", "module": "c"}\n')
        assert b"starting" in caller.recv(4096)
    running.until(lambda: "c" in running.served()["modules"])


def test_reload_makes_the_fleet_as_the_zoo_is(running: FakeFleet) -> None:
    fleet = running
    fleet.ask("update", "a")
    fleet.ask("update", "b")
    fleet.offer(a=A, b=B)
    assert fleet.ask("reload")[0] == "nothing to change"
    fleet.offer(
        a=A | {"task": "sums"}, c=C, d={"weights": "d1", "server": ["--crash", "boom"]}, e={"damaged": "broken"}
    )
    with pytest.raises(FleetError, match=r"^d: decode-d-0 exited with code 1: ValueError: boom"):
        fleet.ask("reload")
    assert fleet.served()["modules"] == {"a", "c"}
    assert "decode-a-0-v2" in fleet.names()  # only its task has changed
    entries = {entry["name"]: entry for entry in json.loads((fleet.run / "router.json").read_text())["modules"]}
    assert entries["a"] == ModuleConfig(name="a", task="sums", version=2).model_dump(mode="json")
    fleet.offer(a=A | {"task": "sums"}, c=C)
    assert fleet.ask("reload")[0] == "nothing to change"


def test_keys_are_followed_and_never_dropped(running: FakeFleet) -> None:
    fleet = running
    path = fleet.zoo / "keys.toml"
    keys = [ApiKey(name=name, digest=digest_of(name)) for name in ("ci", "alice")]
    write_keys(path, keys)
    assert fleet.ask("keys")[0] == "2 keys are accepted"
    assert fleet.ask("keys")[0] == "the keys are the same"
    assert [key["name"] for key in json.loads((fleet.run / "router.json").read_text())["keys"]] == ["ci", "alice"]
    write_keys(path, keys[:1])
    done, told = fleet.ask("reload")
    assert done.endswith(" made")
    assert "1 key is accepted" in told
    path.unlink()
    with pytest.raises(FleetError, match="the key file is gone"):
        fleet.ask("keys")


def test_a_key_alone_in_its_file_is_followed(running: FakeFleet) -> None:
    path = running.zoo / "keys.toml"
    for key in ("leaked", "fresh"):
        path.write_text(f"{key}\n")
        path.chmod(0o600)
        assert running.ask("keys")[0] == "1 key is accepted"
        (accepted,) = json.loads((running.run / "router.json").read_text())["keys"]
        assert accepted["digest"] == digest_of(key)
    write_keys(path, [ApiKey(name="ci", digest=digest_of("ci"))])
    assert running.ask("keys")[0] == "1 key is accepted"
    path.write_text("fresh\n")
    assert running.ask("keys")[0] == "1 key is accepted"


def test_what_was_removed_by_command_does_not_come_back_by_itself(running: FakeFleet) -> None:
    running.ask("update", "b")
    running.ask("remove", "b")
    running.offer(a=A, b=B)
    assert "left out, as --modules or an earlier change has it: b" in running.ask("reload")[1]
    assert running.served()["modules"] == {"a"}
    with pytest.raises(FleetError, match="the only module served"):
        running.ask("remove", "a")
    assert running.ask("add", "b")[0] == "b is served"


def test_watched_zoo_is_followed(fleet: FakeFleet) -> None:
    manifest = fleet.zoo / "modules" / "c" / "module.toml"
    manifest.parent.mkdir(parents=True)
    fleet.launch(TWO, watch=True)
    fleet.ready()
    fleet.offer(a=A, b=B, c=C, d={"damaged": "broken"})
    manifest.touch()
    fleet.until(lambda: fleet.served()["modules"] == {"a", "b", "c"})


def test_change_that_was_asked_for_early_follows_the_start(fleet: FakeFleet, helper: ThreadPoolExecutor) -> None:
    fleet.offer(a=A, b=B, c=C)
    gate = fleet.zoo / "gate"
    fleet.launch({**TWO, "prefill-0": ["--wait-for", str(gate)]})
    fleet.until(lambda: (fleet.run / "state.json").exists())
    told: list[str] = []
    change = helper.submit(change_fleet, fleet.zoo, ChangeRequest(command="add", module="c"), told.append)
    fleet.until(lambda: told == ["the fleet is starting: the change follows"])
    assert not change.done()
    gate.touch()
    fleet.ready()
    assert change.result(WAIT_S) == "c is served"


def test_fleet_that_is_stopped_in_a_change_ends_the_newcomer_too(
    running: FakeFleet, helper: ThreadPoolExecutor
) -> None:
    fleet = running
    hold(fleet, decode_a_0=1)
    fleet.offer(a={"weights": "a2"}, b=B)
    change = helper.submit(fleet.ask, "update", "a")
    fleet.until(lambda: fleet.is_state("decode-a-0", "draining"))
    fleet.processes()
    assert fleet.supervisor is not None
    fleet.supervisor.terminate()
    with pytest.raises(FleetError, match="the fleet is being stopped"):
        change.result(WAIT_S)
    assert fleet.supervisor.wait(WAIT_S) == 0
    fleet.until_all_gone()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_checkpoint_in_the_making_ends_with_the_supervisor(
    running: FakeFleet, helper: ThreadPoolExecutor, end: signal.Signals
) -> None:
    fleet = running
    before = fleet.processes()
    fleet.offer(a=A, b=B, c=C | {"takes_s": 600})
    change = helper.submit(fleet.ask, "add", "c")
    fleet.until(lambda: len(fleet.processes() - before) == 1)
    assert fleet.supervisor is not None
    fleet.supervisor.send_signal(end)
    with pytest.raises(FleetError, match=r"the fleet is being stopped|ended before the change was made"):
        change.result(WAIT_S)
    fleet.until_all_gone()


def test_what_a_killed_supervisor_left_goes_with_the_next_command(running: FakeFleet) -> None:
    fleet = running
    assert fleet.supervisor is not None
    fleet.supervisor.kill()
    fleet.supervisor.wait()
    assert fleet.tmp.exists()
    with pytest.raises(NotRunning):
        fleet.ask("reload")
    assert not fleet.tmp.exists()
    assert not (fleet.run / "router.json").exists()
