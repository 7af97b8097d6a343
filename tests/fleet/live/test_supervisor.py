"""The supervisor over fake servers: what it starts, restarts and never leaves behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
from pathlib import Path

import psutil
import pytest

from psserve.contracts.router_config import load_config
from psserve.errors import AlreadyRunning, NotRunning, StartError
from psserve.fleet import Limits, Supervisor
from psserve.fleet.observe.control import live_state, stop_fleet
from psserve.fleet.run.prepare import make_run_dir
from psserve.fleet.run.router_client import RouterClient
from psserve.fleet.run.state import fleet_lock, running_fleet
from psserve.zoo.disk.manifest import LinkRecord, write_manifest
from psserve.zoo.synthetic.zoo import build_zoo
from tests.fleet.conftest import WAIT_S, FakeFleet
from tests.fleet.fake_plan import FakeSupply, plan_of
from tests.fleet.sending import Sending
from tests.ports import own_ports
from tests.waiting import PATIENCE_S

ENDLESS_BYTES = 1 << 40
TWO = {"prefill-0": ["--child", "plain"], "decode-a-0": ["--child", "plain"]}


def test_ready_line_comes_when_every_server_answers(fleet: FakeFleet) -> None:
    fleet.launch(TWO)
    fleet.ready()
    state = live_state(fleet.zoo)
    assert state.ready
    assert [(server.name, server.state) for server in state.servers] == [
        ("prefill-0", "ready"),
        ("decode-a-0", "ready"),
        ("router", "ready"),
    ]


def test_a_router_that_is_started_anew_is_told_that_the_fleet_was_ready(fleet: FakeFleet) -> None:
    fleet.launch(TWO)
    fleet.ready()
    config = load_config(fleet.run / "router.json")
    assert (config.was_ready, config.serial) == (True, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_everything(fleet: FakeFleet, number: signal.Signals) -> None:
    fleet.launch(TWO)
    fleet.ready()
    assert len(fleet.seen) == 5  # two servers with a child each, and the router
    assert fleet.supervisor is not None
    fleet.supervisor.send_signal(number)
    assert fleet.supervisor.wait(WAIT_S) == 0
    assert "psserve: stopping: answers under way have " in fleet.output()
    fleet.until_all_gone()
    assert not (fleet.run / "state.json").exists()
    assert not (fleet.run / "router.json").exists()
    assert not fleet.tmp.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_was_ignored_from_the_start_stays_so(fleet: FakeFleet, number: signal.Signals) -> None:
    fleet.launch(TWO, ignored=[number])
    fleet.ready()
    told = Path(f"/proc/{fleet.state().supervisor.pid}/status").read_text()
    ignored = int(told.split("SigIgn:")[1].split()[0], 16)
    assert [each for each in (signal.SIGINT, signal.SIGHUP) if ignored >> (each - 1) & 1] == [number]
    stop_fleet(fleet.zoo)


def test_two_signals_at_once_end_all_without_draining(fleet: FakeFleet) -> None:
    fleet.launch(TWO, drain_s=10 * WAIT_S)
    fleet.ready()
    assert fleet.supervisor is not None
    os.kill(fleet.pid("router"), signal.SIGSTOP)  # it would drain for ever
    for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
        fleet.supervisor.send_signal(number)
    assert fleet.supervisor.wait(WAIT_S) == 0
    fleet.until_all_gone()


def test_killed_supervisor_leaves_no_process(fleet: FakeFleet) -> None:
    fleet.launch({"prefill-0": ["--child", "dying"], "decode-a-0": []})
    fleet.ready()
    assert fleet.supervisor is not None
    fleet.supervisor.kill()
    fleet.until_all_gone()


def test_server_that_ignores_sigterm_is_killed_with_its_children(fleet: FakeFleet) -> None:
    fleet.launch({"prefill-0": ["--ignore-term", "--child", "plain"]})
    fleet.ready()
    stop_fleet(fleet.zoo)
    fleet.until_all_gone()


def test_stop_ends_daemons_of_servers_too(fleet: FakeFleet) -> None:
    fleet.launch({"prefill-0": ["--child", "daemon"]})
    fleet.ready()
    os.kill(fleet.pid("prefill-0"), signal.SIGKILL)
    fleet.until(lambda: fleet.restarts("prefill-0") == 1 and fleet.is_state("prefill-0", "ready"))
    assert len(fleet.processes()) == 4  # the first daemon is still there, beside the second, the server and the router
    stop_fleet(fleet.zoo)
    fleet.until_all_gone()


def test_dead_server_is_restarted_and_others_stay(fleet: FakeFleet) -> None:
    fleet.launch(TWO)
    fleet.ready()
    before, other = fleet.pid("decode-a-0"), fleet.pid("prefill-0")
    os.kill(before, signal.SIGKILL)
    fleet.until(lambda: fleet.restarts("decode-a-0") == 1 and fleet.is_state("decode-a-0", "ready"))
    assert fleet.answers("decode-a-0")
    assert fleet.pid("decode-a-0") != before
    assert fleet.pid("prefill-0") == other


def test_children_of_a_dead_server_die_before_its_restart(fleet: FakeFleet) -> None:
    fleet.launch(TWO)
    fleet.ready()
    children = psutil.Process(fleet.pid("decode-a-0")).children()
    assert children
    os.kill(fleet.pid("decode-a-0"), signal.SIGKILL)
    fleet.until(lambda: fleet.restarts("decode-a-0") == 1)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_server_that_keeps_dying_is_given_up_and_others_serve(fleet: FakeFleet) -> None:
    broken = fleet.zoo / "broken"
    fleet.launch(TWO | {"decode-b-0": ["--crash-if", str(broken)]}, restarts=2)
    fleet.ready()
    broken.touch()
    os.kill(fleet.pid("decode-b-0"), signal.SIGKILL)
    fleet.until(lambda: fleet.is_state("decode-b-0", "failed"))
    assert fleet.restarts("decode-b-0") == 2
    assert fleet.answers("decode-a-0")
    failed = next(server for server in live_state(fleet.zoo).servers if server.name == "decode-b-0")
    assert (failed.state, failed.error) == ("failed", "exited with code 1: ValueError: asked to")


def test_server_that_lives_and_serves_nobody_is_ended_and_started_anew(fleet: FakeFleet) -> None:
    fleet.launch(TWO, stuck_s=0.5)
    fleet.ready()
    pid = fleet.pid("prefill-0")
    os.kill(pid, signal.SIGSTOP)
    fleet.until(lambda: not psutil.pid_exists(pid) and fleet.is_state("prefill-0", "ready"))
    assert fleet.restarts("prefill-0") == 1
    assert fleet.restarts("decode-a-0") == 0
    stop_fleet(fleet.zoo)


def test_a_full_disk_ends_nothing_and_is_told_once(fleet: FakeFleet) -> None:
    fleet.launch(TWO)
    fleet.ready()
    state, pid, router = fleet.run / "state.json", fleet.pid("decode-a-0"), RouterClient(fleet.state().url)
    state.unlink()
    state.mkdir()  # a file cannot take its place
    os.kill(pid, signal.SIGKILL)
    fleet.until(lambda: not psutil.pid_exists(pid) and router.workers()["decode-a-0"].state == "ready")
    state.rmdir()
    fleet.until(lambda: state.exists() and fleet.is_state("decode-a-0", "ready"))
    stop_fleet(fleet.zoo)
    assert fleet.output().count("warning: cannot write the state file") == 1


def test_living_fleet_touches_its_state_file(fleet: FakeFleet) -> None:
    fleet.launch(TWO)
    fleet.ready()
    state = fleet.run / "state.json"
    for _ in range(2):
        os.utime(state, (0, 0))
        fleet.until(lambda: state.stat().st_mtime > 0)


def test_dead_router_is_restarted(fleet: FakeFleet) -> None:
    fleet.launch(TWO)
    fleet.ready()
    os.kill(fleet.pid("router"), signal.SIGKILL)
    fleet.until(lambda: fleet.restarts("router") == 1 and fleet.is_state("router", "ready"))


def test_server_that_dies_at_start_fails_the_launch(fleet: FakeFleet) -> None:
    fleet.launch(TWO | {"decode-b-0": ["--crash", "no such weights"]})
    said = fleet.output()
    assert fleet.supervisor is not None
    assert fleet.supervisor.returncode == 1
    assert said.splitlines()[-1] == (
        f"StartError: decode-b-0 exited with code 1: ValueError: no such weights (log: {fleet.run}/logs/decode-b-0.log)"
    )
    assert "psserve:   Loading weights" in said
    assert not (fleet.run / "state.json").exists()


def test_server_that_never_answers_fails_the_launch(fleet: FakeFleet) -> None:
    fleet.launch({"prefill-0": ["--wait-for", str(fleet.zoo / "never")]}, start_timeout_s=0.5)
    assert "StartError: not ready after 0.5 s: prefill-0" in fleet.output()


def test_signal_before_ready_ends_the_launch(fleet: FakeFleet) -> None:
    fleet.launch({"prefill-0": ["--wait-for", str(fleet.zoo / "never")]})
    fleet.until(lambda: (fleet.run / "state.json").exists())
    assert fleet.supervisor is not None
    fleet.supervisor.terminate()
    assert "StartError: stopped before the fleet was ready" in fleet.output()


def test_signal_while_checkpoints_are_made_ends_that_and_starts_nothing(fleet: FakeFleet, tmp_path: Path) -> None:
    zoo = build_zoo(tmp_path / "built", modules=())
    module = zoo.add("a", zoo.base.path, allow_naive=True, store="link")
    weights = shutil.copy(zoo.base.path / "model.safetensors", tmp_path)
    os.truncate(weights, ENDLESS_BYTES)  # as it has another time than was recorded, it is hashed
    (file,) = module.files
    manifest = module.manifest.model_copy(
        update={
            "files": (file.model_copy(update={"size": ENDLESS_BYTES}),),
            "links": {file.name: LinkRecord(path=str(weights), modified_ns=0)},
        }
    )
    write_manifest(module.path / "module.toml", manifest)
    shutil.copytree(zoo.path, fleet.zoo, dirs_exist_ok=True)
    fleet.launch(TWO, checkpoints=["a"])
    fleet.until((fleet.run / "checkpoints").exists)
    assert fleet.supervisor is not None
    fleet.supervisor.terminate()
    assert fleet.output().endswith("StartError: stopped before the fleet was ready\n")
    assert list((fleet.run / "logs").iterdir()) == []


def test_second_fleet_of_a_zoo_is_refused(fleet: FakeFleet) -> None:
    fleet.launch(TWO)
    fleet.ready()
    with pytest.raises(AlreadyRunning, match=rf"already at http://127.0.0.1:{fleet.ports[0]} "), fleet_lock(fleet.run):
        pass


def test_a_copy_of_the_zoo_stops_nothing(fleet: FakeFleet) -> None:
    fleet.launch(TWO)
    fleet.ready()
    copy = fleet.zoo / "copy"
    shutil.copytree(fleet.run, copy / ".run")
    with pytest.raises(NotRunning):
        stop_fleet(copy)
    assert fleet.answers("decode-a-0")
    assert fleet.tmp.exists()


def test_detached_fleet_outlives_its_launcher_and_stops(fleet: FakeFleet) -> None:
    fleet.launch(TWO, "--detach")
    fleet.ready()
    assert fleet.supervisor is not None
    assert fleet.supervisor.wait(WAIT_S) == 0
    assert fleet.answers("decode-a-0")
    assert stop_fleet(fleet.zoo).base == "fake"
    fleet.until_all_gone()
    with pytest.raises(NotRunning):
        running_fleet(fleet.zoo)


def test_a_second_detached_launch_leaves_the_first_ones_log(fleet: FakeFleet) -> None:
    fleet.launch(TWO, "--detach")
    fleet.ready()
    log = fleet.run / "logs" / "supervisor.log"
    before = log.stat().st_ino
    fleet.launch(TWO, "--detach")
    assert "AlreadyRunning: a fleet of the zoo" in fleet.output()
    assert log.stat().st_ino == before
    stop_fleet(fleet.zoo)
    assert "psserve: stopping" in log.read_text()


def test_detached_launch_reports_a_failed_start(fleet: FakeFleet) -> None:
    fleet.launch({"prefill-0": ["--crash", "boom"]}, "--detach")
    said = fleet.output()
    assert fleet.supervisor is not None
    assert fleet.supervisor.returncode == 1
    assert "StartError: prefill-0 exited with code 1: ValueError: boom" in said


def test_stop_without_a_fleet(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        stop_fleet(tmp_path)


def test_servers_get_the_key_and_files_are_private(fleet: FakeFleet) -> None:
    fleet.launch(TWO)
    fleet.ready()
    assert (fleet.run / "logs" / "prefill-0.log").read_text() == "key: sesame\n"
    for path in (fleet.run, fleet.run / "logs", fleet.tmp):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in (fleet.run / "router.json", fleet.run / "state.json", fleet.run / "logs" / "prefill-0.log"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_the_time_in_which_files_are_sent_does_not_count(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"prefill-0": []}, [*own_ports(1), 2], tmp_path)
    make_run_dir(plan.run_dir)
    sending = Sending()
    supervisor = Supervisor(plan, starter=sending, supply=FakeSupply(tmp_path, []), limits=Limits(start_timeout_s=0.0))
    supervisor._roster.start()
    ready = asyncio.create_task(supervisor._until_ready())
    await asyncio.sleep(0.3)
    assert not ready.done()
    sending.awaits_files = False
    with pytest.raises(StartError, match="not ready after 0 s"):
        await asyncio.wait_for(ready, PATIENCE_S)
