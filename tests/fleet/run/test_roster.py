"""What a roster does of itself about its servers, with scripted processes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from psserve.fleet.plan.memory import ServerMemory
from psserve.fleet.plan.spec import ProcessSpec
from psserve.fleet.run.member import RestartPolicy
from psserve.fleet.run.process import Handle
from psserve.fleet.run.roster import Roster
from tests.fleet.fake_plan import plan_of
from tests.fleet.nvidia_smi import put_on_path

MIB = 1024**2


class Living:
    """Processes that never end, and the names of those that were killed."""

    lost_hosts: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.killed: list[str] = []

    def start(self, spec: ProcessSpec) -> Handle:
        return LivingHandle(spec.name, self.killed)


class LivingHandle:
    pid = None
    is_lost = False
    awaits_files = False

    def __init__(self, name: str, killed: list[str]) -> None:
        self._name, self._killed = name, killed

    def poll(self) -> int | None:
        return None

    def terminate(self) -> None: ...

    def kill(self) -> None:
        self._killed.append(self._name)

    def tail(self, lines: int) -> list[str]:
        return []

    def memory(self) -> None: ...


@pytest.mark.parametrize(
    ("states", "ended"),
    [
        ({"prefill-0": "down", "decode-a-0": "ready"}, ["prefill-0"]),
        ({"prefill-0": "ready", "decode-a-0": "down"}, ["decode-a-0"]),
        ({"prefill-0": "down", "decode-a-0": "down"}, []),
        ({"prefill-0": "down", "prefill-1": "ready", "decode-a-0": "down"}, ["decode-a-0"]),
        ({"prefill-0": "ready", "decode-a-0": "starting"}, []),
        ({"prefill-0": "ready", "decode-a-0": "ready"}, []),
    ],
)
def test_a_server_is_stuck_only_where_it_could_serve(tmp_path: Path, states: dict[str, str], ended: list[str]) -> None:
    plan = plan_of(tmp_path, {name: [] for name in states}, list(range(1, 2 + len(states))), tmp_path)
    living = Living()
    roster = Roster(plan, living, RestartPolicy(stuck_s=0.0))
    plan.run_dir.mkdir(parents=True)
    (plan.run_dir / "logs").mkdir()
    roster.start()
    for member in roster.servers:
        member.state = states[member.spec.name]
    roster.end_stuck()
    assert living.killed == ended


def test_what_servers_take_on_gpus_is_kept_for_later_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is split over two GPUs; nvidia-smi tells each of its processes on each of them."""
    plan = plan_of(tmp_path, {"prefill-0": [], "decode-a-0": []}, [1, 2, 3], tmp_path)
    memory = ServerMemory(weight_bytes=100 * MIB, kv_tokens=64, kv_bytes=50 * MIB, overhead_bytes=0, kind="split")
    prefill, decode = plan.servers
    plan = replace(plan, servers=(replace(prefill, gpus=(0, 1), memory=memory), decode))
    plan.run_dir.mkdir(parents=True)
    roster = Roster(plan, Living(), RestartPolicy())
    roster.start()
    monkeypatch.setattr(LivingHandle, "pid", os.getpid())
    listed = "".join(f"{pid}, {mib}\n" for pid, mib in ((os.getpid(), 250), (os.getpid(), 200), (1, 9000)))
    put_on_path(monkeypatch, tmp_path / "bin", script=f"#!/bin/sh\ncat <<'END'\n{listed}END\n")
    roster.note_gpu_memory()
    assert json.loads((plan.run_dir / "measured.json").read_text()) == {"split": (450 - 150) // 2 * MIB}
