"""Which logs there are, and which of them a name means."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from psserve.errors import FleetError
from psserve.fleet.observe.follow import choose_logs
from psserve.fleet.run.state import FleetState, ProcessId, ServerState, write_state


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """The folder with what a fleet left that has ended."""
    folder = tmp_path / ".run" / "logs"
    folder.mkdir(parents=True)
    for name in ("decode-math-0", "decode-math-1-v2", "decode-a-0", "prefill-0", "router", "supervisor"):
        (folder / f"{name}.log").touch()
    (folder / "router.log.1").touch()
    return folder


def chosen(zoo: Path, wanted: str | None) -> list[str]:
    return [log.name for log in choose_logs(zoo, wanted)]


def test_all_in_order(tmp_path: Path, logs: Path) -> None:
    names = ["supervisor", "router", "prefill-0", "decode-a-0", "decode-math-0", "decode-math-1-v2"]
    assert chosen(tmp_path, None) == names


@pytest.mark.parametrize(
    ("wanted", "names"),
    [("router", ["router"]), ("math", ["decode-math-0", "decode-math-1-v2"]), ("decode-a-0", ["decode-a-0"])],
)
def test_by_name_or_module(tmp_path: Path, logs: Path, wanted: str, names: list[str]) -> None:
    assert chosen(tmp_path, wanted) == names


def test_an_adapter_has_the_logs_of_the_servers_that_it_shares(tmp_path: Path, logs: Path) -> None:
    (logs / "decode-adapters-0.log").touch()
    modules = [{"name": "math"}, {"name": "sums", "group": "adapters"}]
    (tmp_path / ".run" / "router.json").write_text(json.dumps({"modules": modules}))
    assert chosen(tmp_path, "sums") == ["decode-adapters-0"]
    assert chosen(tmp_path, "math") == ["decode-math-0", "decode-math-1-v2"]


def test_an_unknown_name_lists_the_known(tmp_path: Path, logs: Path) -> None:
    with pytest.raises(FleetError, match=r"'poems' has a log; there are: supervisor, .*; or give a module: a, math"):
        choose_logs(tmp_path, "poems")


def test_a_zoo_that_was_never_served_has_none(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="was not served yet"):
        choose_logs(tmp_path, None)


def run_math(zoo: Path, logs: Path) -> None:
    """Let this process be the supervisor of a fleet of `zoo` that runs decode-math-0."""
    server = ServerState(
        name="decode-math-0",
        role="decode",
        module="math",
        port=1,
        state="ready",
        started=(logs / "router.log").stat().st_mtime,
        log=str(logs / "decode-math-0.log"),
    )
    state = FleetState(
        url="http://127.0.0.1:1",
        zoo=str(zoo),
        base="b",
        supervisor=ProcessId.own(),
        ready=True,
        tmp_dir="t",
        servers=(server,),
    )
    write_state(zoo / ".run", state)


def test_of_a_running_fleet_only_its_own(tmp_path: Path, logs: Path) -> None:
    run_math(tmp_path, logs)
    (logs / "preload.log").touch()
    os.utime(logs / "preload.log", (0, 0))
    assert chosen(tmp_path, None) == ["decode-math-0"]
    with pytest.raises(FleetError, match="on the terminal of `psserve launch`"):
        choose_logs(tmp_path, "supervisor")


def test_of_a_copied_zoo_all_that_it_has(tmp_path: Path, logs: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    run_math(tmp_path, logs)
    copy = shutil.copytree(tmp_path, tmp_path_factory.mktemp("copies") / "zoo")
    assert {log.path for log in choose_logs(copy, None)} == set((copy / ".run" / "logs").glob("*.log"))
