"""Which servers a roster ends because they live and serve nobody, with scripted processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from psserve.fleet.plan.spec import ProcessSpec
from psserve.fleet.run.member import RestartPolicy
from psserve.fleet.run.process import Handle
from psserve.fleet.run.roster import Roster
from tests.fleet.fake_plan import plan_of


class Living:
    """Processes that never end, and the names of those that were killed."""

    def __init__(self) -> None:
        self.killed: list[str] = []

    def start(self, spec: ProcessSpec) -> Handle:
        return LivingHandle(spec.name, self.killed)


class LivingHandle:
    pid = None

    def __init__(self, name: str, killed: list[str]) -> None:
        self._name, self._killed = name, killed

    def poll(self) -> int | None:
        return None

    def terminate(self) -> None: ...

    def kill(self) -> None:
        self._killed.append(self._name)


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
