"""Which servers are forked from the preloaded process, and how they end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from psserve.contracts.programs import program
from psserve.engine.settings import WORKER
from psserve.fleet.plan.spec import ServerSpec
from psserve.fleet.run import preload
from psserve.fleet.run.preload import ForkedHandle, PreloadStarter
from tests.waiting import until

from .conftest import WAIT_S
from .fake_zoo import FakeBase, FakeZoo
from .planning import plan


def unusable(server: ServerSpec, folder: Path, **env: str) -> ServerSpec:
    """A server that ends at once, for want of arguments, in an environment of its own."""
    return replace(server, command=program(WORKER), env={"PATH": "/bin"} | env, log=folder / f"{server.name}.log")


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[PreloadStarter]:
    """A starter whose preloaded process does not outlive the test."""
    starter = PreloadStarter(tmp_path / "preload.log")
    yield starter
    starter.close()


def test_a_server_with_another_environment_is_started_plainly(tmp_path: Path, starter: PreloadStarter) -> None:
    zoo: Any = FakeZoo(tmp_path, FakeBase(tmp_path / "base"))
    first, second, third = plan(zoo).servers
    handles = [
        starter.start(unusable(first, tmp_path, SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE="file:///1")),
        starter.start(unusable(second, tmp_path, SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE="file:///2")),
        starter.start(replace(unusable(second, tmp_path, PSSERVE_ADAPTERS=str(tmp_path)), name="decode-adapters-0")),
        starter.start(unusable(third, tmp_path, SGLANG_LOG_MS="1")),
    ]
    try:
        assert [isinstance(handle, ForkedHandle) for handle in handles] == [True, True, True, False]
    finally:
        for handle in handles:
            handle.kill()
        until(lambda: all(handle.poll() is not None for handle in handles), WAIT_S)


# Its servers wait for input that ends with it, so that none is left if a test fails.
FAKE_PRELOAD = """
import json, os, subprocess, sys, threading, time
GATE = sys.argv[1]
def watch(child):
    print(json.dumps({"event": "ended", "pid": child.pid, "code": child.wait()}), flush=True)
for line in sys.stdin:
    while not os.path.exists(GATE):
        time.sleep(0.02)
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True)
    print(json.dumps({"event": "started", "name": json.loads(line)["name"], "pid": child.pid}), flush=True)
    threading.Thread(target=watch, args=(child,), daemon=True).start()
"""


def test_ending_a_server_that_is_about_to_be_forked_spares_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starter: PreloadStarter
) -> None:
    zoo: Any = FakeZoo(tmp_path, FakeBase(tmp_path / "base"))
    first, second, _ = plan(zoo).servers
    gate = tmp_path / "gate"
    gate.touch()
    monkeypatch.setattr(preload, "_COMMAND", (sys.executable, "-c", FAKE_PRELOAD, str(gate)))
    stays = starter.start(unusable(first, tmp_path))
    until(lambda: stays.pid is not None, WAIT_S)
    gate.unlink()
    goes = starter.start(unusable(second, tmp_path))
    assert goes.pid is None
    goes.kill()
    gate.touch()
    until(lambda: goes.poll() is not None, WAIT_S)
    assert goes.poll() == -9
    assert stays.poll() is None
    stays.kill()
    until(lambda: stays.poll() is not None, WAIT_S)


def test_a_server_that_was_never_forked_ends_as_the_preloaded_process_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starter: PreloadStarter
) -> None:
    zoo: Any = FakeZoo(tmp_path, FakeBase(tmp_path / "base"))
    server = unusable(plan(zoo).servers[0], tmp_path)
    monkeypatch.setattr(preload, "_COMMAND", (sys.executable, "-c", "raise SystemExit('ImportError: no sglang')"))
    handle = starter.start(server)
    until(lambda: handle.poll() is not None, WAIT_S)
    assert handle.poll() == 1
    assert "the preloaded process ended: ImportError: no sglang" in server.log.read_text()
