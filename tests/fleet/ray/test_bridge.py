"""How the bridge enters a cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from psserve.fleet.ray.messages import Task

pytest.importorskip("ray")


def test_agents_are_not_led_to_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray puts the folder that it is entered from before all others that its workers import from."""
    import ray

    from psserve.fleet.ray import bridge

    entered_from: list[str] = []

    def enter(**_: Any) -> None:
        entered_from.append(os.getcwd())
        raise ConnectionError("nobody is there")

    monkeypatch.setattr(ray, "init", enter)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(bridge.Refused, match=r"no way into the Ray cluster at 10\.0\.0\.1:6379: nobody is there"):
        bridge._connect(Task(address="10.0.0.1:6379", fleet="f", owner="o", on_gpus=False, lease_s=1.0))
    assert (entered_from, os.getcwd()) == (["/"], str(tmp_path))
