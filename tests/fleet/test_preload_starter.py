"""Which servers are forked from the preloaded process."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from psserve.fleet.preload import ForkedHandle, PreloadStarter
from psserve.fleet.spec import ServerSpec

from .fake_zoo import FakeBase, FakeZoo
from .planning import plan


def unusable(server: ServerSpec, folder: Path, **env: str) -> ServerSpec:
    """A server that ends at once, for want of arguments, in an environment of its own."""
    command = (sys.executable, "-m", "psserve.engine.worker")
    return replace(server, command=command, env={"PATH": "/bin"} | env, log=folder / f"{server.name}.log")


def test_a_server_with_another_environment_is_started_plainly(tmp_path: Path) -> None:
    zoo: Any = FakeZoo(tmp_path, FakeBase(tmp_path / "base"))
    first, second, third = plan(zoo).servers
    starter = PreloadStarter(tmp_path / "preload.log")
    handles = [
        starter.start(unusable(first, tmp_path, SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE="file:///1")),
        starter.start(unusable(second, tmp_path, SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE="file:///2")),
        starter.start(unusable(third, tmp_path, SGLANG_LOG_MS="1")),
    ]
    try:
        assert [isinstance(handle, ForkedHandle) for handle in handles] == [True, True, False]
    finally:
        for handle in handles:
            handle.kill()
        while any(handle.poll() is None for handle in handles):
            time.sleep(0.02)
