"""The state file and the lock."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from psserve.errors import AlreadyRunning, FleetError, NotRunning
from psserve.fleet.plan.layout import tmp_dir
from psserve.fleet.run.process import boot_id, start_ticks
from psserve.fleet.run.state import (
    SILENT_S,
    FleetState,
    ProcessId,
    ServerState,
    beat,
    clean_stale,
    fleet_lock,
    read_state,
    require_none_running,
    running_fleet,
    write_state,
)
from tests.waiting import PATIENCE_S

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PID = st.integers(1, 2**22)
SERVER = st.builds(
    ServerState,
    name=TEXT,
    role=st.sampled_from(["prefill", "decode", "router"]),
    module=st.none() | TEXT,
    pid=st.none() | PID,
    ticks=st.none() | PID,
    port=st.integers(1, 65535),
    state=st.sampled_from(["starting", "ready", "down", "restarting", "failed", "stopped"]),
    restarts=st.integers(0, 100),
    started=st.none() | st.floats(0, 2**33),
    error=st.none() | TEXT,
    log=TEXT,
)
STATE = st.builds(
    FleetState,
    url=TEXT,
    zoo=TEXT,
    base=TEXT,
    supervisor=st.builds(ProcessId, pid=PID, ticks=PID),
    ready=st.booleans(),
    tmp_dir=TEXT,
    servers=st.lists(SERVER, max_size=4).map(tuple),
)


def state_of(zoo: Path, supervisor: ProcessId, *servers: ServerState) -> FleetState:
    return FleetState(url="u", zoo=str(zoo), base="b", supervisor=supervisor, ready=True, tmp_dir="", servers=servers)


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    (tmp_path / ".run").mkdir()
    return tmp_path


@given(state=STATE)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_state_survives_the_file(zoo: Path, state: FleetState) -> None:
    write_state(zoo / ".run", state)
    assert read_state(zoo / ".run") == state
    assert [path.name for path in (zoo / ".run").iterdir()] == ["state.json"]


@given(damaged=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_damaged_file_is_a_clear_error(zoo: Path, damaged: bytes) -> None:
    (zoo / ".run" / "state.json").write_bytes(damaged)
    with pytest.raises(FleetError, match="is damaged"):
        read_state(zoo / ".run")


def test_state_file_is_private(zoo: Path) -> None:
    write_state(zoo / ".run", state_of(zoo, ProcessId.own()))
    assert stat.S_IMODE((zoo / ".run" / "state.json").stat().st_mode) == 0o600


def test_no_state_is_no_fleet(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    with pytest.raises(NotRunning, match="psserve launch"):
        running_fleet(tmp_path)


def test_state_of_a_living_supervisor_is_found(zoo: Path) -> None:
    state = state_of(zoo, ProcessId.own())
    write_state(zoo / ".run", state)
    assert running_fleet(zoo) == state


def test_reused_pid_is_not_the_supervisor(zoo: Path) -> None:
    own = ProcessId.own()
    write_state(zoo / ".run", state_of(zoo, ProcessId(pid=own.pid, ticks=own.ticks - 1)))
    with pytest.raises(NotRunning):
        running_fleet(zoo)
    assert read_state(zoo / ".run") is None


@pytest.fixture
def copy(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the zoo that was made while its fleet ran."""
    write_state(zoo / ".run", state_of(zoo, ProcessId.own()))
    return shutil.copytree(zoo, tmp_path_factory.mktemp("copies") / "zoo")


def test_a_fleet_is_not_that_of_the_zoos_copy(zoo: Path, copy: Path) -> None:
    with pytest.raises(NotRunning):
        running_fleet(copy)
    assert read_state(copy / ".run") is None
    assert running_fleet(zoo)


def test_a_copy_is_launched_beside_the_original(copy: Path) -> None:
    require_none_running(copy, pytest.fail)


def test_servers_of_the_original_are_not_left_overs_of_the_copy(zoo: Path, copy: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as server:
        ticks = start_ticks(server.pid)
        assert ticks is not None
        write_state(copy / ".run", state_of(zoo, ProcessId(pid=1, ticks=1), left_over(server.pid, ticks)))
        assert clean_stale(copy / ".run") == []
        assert server.poll() is None
        server.kill()


def test_a_zoo_is_the_same_by_another_path(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    write_state(zoo / ".run", state_of(zoo, ProcessId.own()))
    link = tmp_path_factory.mktemp("links") / "zoo"
    link.symlink_to(zoo)
    assert running_fleet(link)


def test_a_zoo_that_was_moved_still_has_its_fleet(zoo: Path) -> None:
    write_state(zoo / ".run", state_of(zoo / "before", ProcessId.own()))
    assert running_fleet(zoo)


ELSEWHERE = ProcessId(pid=1, ticks=1, boot="another", namespace=1, machine="host-b")
"""On a machine that shares the zoo's file system."""


def leave(zoo: Path, state: FleetState, ago_s: float) -> None:
    """A fleet whose state file was touched for the last time so many seconds ago."""
    write_state(zoo / ".run", state)
    then = time.time() - ago_s
    os.utime(zoo / ".run" / "state.json", (then, then))


def left_over(pid: int, ticks: int) -> ServerState:
    return ServerState(name="decode-a-0", role="decode", pid=pid, ticks=ticks, port=1, state="ready", log="")


def test_left_over_server_is_ended(zoo: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as server:
        ticks = start_ticks(server.pid)
        assert ticks is not None
        write_state(zoo / ".run", state_of(zoo, ProcessId(pid=1, ticks=1), left_over(server.pid, ticks)))
        assert clean_stale(zoo / ".run") == ["decode-a-0"]
        assert server.wait(PATIENCE_S) == -9


def test_process_that_took_over_a_servers_pid_is_left_alone(zoo: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as innocent:
        ticks = start_ticks(innocent.pid)
        assert ticks is not None
        write_state(zoo / ".run", state_of(zoo, ProcessId(pid=1, ticks=1), left_over(innocent.pid, ticks - 1)))
        assert clean_stale(zoo / ".run") == []
        assert innocent.poll() is None
        innocent.kill()


def test_process_with_the_pid_of_a_server_on_another_host_is_left_alone(zoo: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as innocent:
        ticks = start_ticks(innocent.pid)
        assert ticks is not None
        remote = left_over(innocent.pid, ticks).model_copy(update={"host": "b"})
        write_state(zoo / ".run", state_of(zoo, ProcessId(pid=1, ticks=1), remote))
        assert clean_stale(zoo / ".run") == []
        assert innocent.poll() is None
        innocent.kill()


def test_process_with_the_pid_of_a_server_of_another_machines_fleet_is_left_alone(zoo: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as innocent:
        ticks = start_ticks(innocent.pid)
        assert ticks is not None
        leave(zoo, state_of(zoo, ELSEWHERE, left_over(innocent.pid, ticks)), SILENT_S)
        assert clean_stale(zoo / ".run") == []
        assert innocent.poll() is None
        innocent.kill()


@pytest.mark.parametrize(("version", "unknown"), [(1, {"boot", "namespace", "machine"}), (2, {"namespace", "machine"})])
def test_a_file_of_an_older_version_is_read(zoo: Path, version: int, unknown: set[str]) -> None:
    server = {"name": "decode-a-0", "role": "decode", "pid": 2, "ticks": 2, "port": 1, "state": "ready", "log": ""}
    supervisor = ProcessId.own().model_dump(exclude=unknown)
    state = {
        "version": version,
        "url": "u",
        "zoo": "z",
        "base": "b",
        "supervisor": supervisor,
        "ready": True,
        "tmp_dir": "",
    }
    (zoo / ".run" / "state.json").write_text(json.dumps(state | {"servers": [server]}))
    found = running_fleet(zoo)
    assert (found.servers[0].host, found.servers[0].pid) == ("local", 2)


def test_a_file_of_a_later_version_is_refused_with_what_to_do(zoo: Path) -> None:
    (zoo / ".run" / "state.json").write_text('{"version": 4, "nodes": []}')
    with pytest.raises(FleetError, match="another version of psserve: end its fleet with that one, or remove it"):
        read_state(zoo / ".run")


def test_lock_is_exclusive_and_freed(zoo: Path) -> None:
    with fleet_lock(zoo / ".run"), pytest.raises(AlreadyRunning, match="runs already"), fleet_lock(zoo / ".run"):
        pass
    with fleet_lock(zoo / ".run"):
        pass


def test_failed_write_keeps_the_old_state(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = state_of(zoo, ProcessId.own())
    write_state(zoo / ".run", old)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_state(zoo / ".run", old.model_copy(update={"url": "new"}))
    assert read_state(zoo / ".run") == old
    assert [path.name for path in (zoo / ".run").iterdir()] == ["state.json"]


def test_zombie_counts_as_dead() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert start_ticks(child.pid) is None


RUNS_ON_B = r"runs on host-b, as far as .*/state\.json tells, .*: run psserve there .* remove the file"


def test_fleet_of_another_machine_is_named(zoo: Path) -> None:
    state = state_of(zoo, ELSEWHERE)
    leave(zoo, state, SILENT_S - 10)
    with pytest.raises(FleetError, match=RUNS_ON_B) as refused:
        running_fleet(zoo)
    assert not isinstance(refused.value, NotRunning)
    assert read_state(zoo / ".run") == state


def test_fleet_of_another_machine_that_shows_no_life_has_ended(zoo: Path) -> None:
    leave(zoo, state_of(zoo, ELSEWHERE), SILENT_S)
    with pytest.raises(NotRunning):
        running_fleet(zoo)
    assert read_state(zoo / ".run") is None


def test_another_machines_path_of_the_zoo_may_be_that_of_another_one_here(zoo: Path) -> None:
    (zoo / "another").mkdir()
    leave(zoo, state_of(zoo / "another", ELSEWHERE), SILENT_S - 10)
    with pytest.raises(FleetError, match=RUNS_ON_B):
        running_fleet(zoo)


def test_a_beat_is_life(zoo: Path) -> None:
    leave(zoo, state_of(zoo, ELSEWHERE), SILENT_S)
    beat(zoo / ".run")
    with pytest.raises(FleetError, match=RUNS_ON_B):
        running_fleet(zoo)


def test_machines_clock_does_not_matter(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(zoo / ".run", state_of(zoo, ELSEWHERE))
    ahead = time.time() + 2 * SILENT_S
    monkeypatch.setattr(time, "time", lambda: ahead)
    with pytest.raises(FleetError, match=RUNS_ON_B):
        running_fleet(zoo)


def test_where_nothing_can_be_written_the_machines_clock_serves(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    leave(zoo, state_of(zoo, ELSEWHERE), SILENT_S - 10)
    with pytest.raises(FleetError, match=RUNS_ON_B):
        running_fleet(zoo)


def test_fleet_of_another_container_of_this_machine_is_named(zoo: Path) -> None:
    supervisor = ProcessId.own().model_copy(update={"namespace": 1, "machine": "container-b"})
    write_state(zoo / ".run", state_of(zoo, supervisor))
    with pytest.raises(FleetError, match="runs on container-b"):
        running_fleet(zoo)


@pytest.fixture
def kept(zoo: Path) -> list[Path]:
    """Files of the fleet in the zoo."""
    paths = [zoo / ".run" / name for name in ("router.json", "checkpoints", "adapters")]
    paths[0].touch()
    for path in paths[1:]:
        path.mkdir()
    return paths


def test_files_of_another_machines_fleet_stay(zoo: Path, kept: list[Path]) -> None:
    state = state_of(zoo, ELSEWHERE)
    write_state(zoo / ".run", state)
    with pytest.raises(AlreadyRunning, match=RUNS_ON_B):
        clean_stale(zoo / ".run")
    assert all(path.exists() for path in kept)
    assert read_state(zoo / ".run") == state


def test_files_that_another_machines_fleet_left_go(zoo: Path, kept: list[Path]) -> None:
    leave(zoo, state_of(zoo, ELSEWHERE), SILENT_S)
    clean_stale(zoo / ".run")
    assert not any(path.exists() for path in kept)


def test_files_that_another_container_of_this_machine_left_go_at_once(zoo: Path, kept: list[Path]) -> None:
    """Whoever holds the lock is alone on this machine."""
    write_state(zoo / ".run", state_of(zoo, ELSEWHERE.model_copy(update={"boot": boot_id()})))
    require_none_running(zoo, pytest.fail)
    clean_stale(zoo / ".run")
    assert not any(path.exists() for path in kept)


@pytest.mark.parametrize("supervisor", [ELSEWHERE, ProcessId(pid=1, ticks=1)], ids=["elsewhere", "unknown"])
def test_of_temporary_folders_only_this_zoos_own_goes(zoo: Path, supervisor: ProcessId) -> None:
    """The path in the state may be that of another zoo's fleet here."""
    own, others = tmp_dir(zoo), zoo / "others"
    own.mkdir()
    others.mkdir()
    leave(zoo, state_of(zoo, supervisor).model_copy(update={"tmp_dir": str(others)}), SILENT_S)
    clean_stale(zoo / ".run")
    assert (own.exists(), others.exists()) == (False, True)


def test_the_zoos_own_temporary_folder_goes_from_another_tmpdir_too(zoo: Path) -> None:
    elsewhere = zoo / "tmpdir" / tmp_dir(zoo).name
    elsewhere.mkdir(parents=True)
    leave(zoo, state_of(zoo, ELSEWHERE).model_copy(update={"tmp_dir": str(elsewhere)}), SILENT_S)
    clean_stale(zoo / ".run")
    assert not elsewhere.exists()


def test_launch_is_refused_once_another_machines_fleet_shows_life(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(zoo, state_of(zoo, ELSEWHERE), SILENT_S - 10)
    monkeypatch.setattr(time, "sleep", lambda _: beat(zoo / ".run"))
    told: list[str] = []
    with pytest.raises(AlreadyRunning, match=RUNS_ON_B):
        require_none_running(zoo, told.append)
    assert told == [
        "a fleet of this zoo ran on host-b 50 s ago: waiting up to 10 s to see whether it still does",
    ]


def test_launch_waits_until_what_another_machine_left_may_be_cleaned_up(zoo: Path) -> None:
    leave(zoo, state_of(zoo, ELSEWHERE), SILENT_S - 0.5)
    told: list[str] = []
    require_none_running(zoo, told.append)
    assert len(told) == 1
    clean_stale(zoo / ".run")


def test_launch_does_not_wait_for_what_was_left_long_ago(zoo: Path) -> None:
    leave(zoo, state_of(zoo, ELSEWHERE), SILENT_S)
    require_none_running(zoo, pytest.fail)
