"""What is written down of trials, for the fleet after this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from psserve.contracts.router_config import ModuleConfig, Trial
from psserve.errors import FleetError
from psserve.fleet.plan.layout import trials_path
from psserve.fleet.run.trials import forget_trial, keep_trials, kept_trial, kept_trials


def module(name: str, **trial: float) -> ModuleConfig:
    return ModuleConfig(name=name, zoo_version=3, trial=Trial(version=2, zoo_version=4, **trial))  # type: ignore[arg-type]


def test_what_somebody_gets_is_kept(tmp_path: Path) -> None:
    measured, plain = module("c"), ModuleConfig(name="d")
    keep_trials(tmp_path, [module("a", share=12.5), module("b", shadow=True), measured, plain])
    assert [(str(one), one.beside, one.share, one.shadow) for one in kept_trials(tmp_path)] == [
        ("version 4 of a", 3, 12.5, False),
        ("version 4 of b", 3, 0.0, True),
    ]
    assert trials_path(tmp_path).stat().st_mode & 0o777 == 0o600


def test_a_trial_can_be_forgotten(tmp_path: Path) -> None:
    keep_trials(tmp_path, [module("a", share=10), module("b", share=20)])
    forget_trial(tmp_path, "a")
    assert (kept_trial(tmp_path, "a"), [one.module for one in kept_trials(tmp_path)]) == (None, ["b"])
    forget_trial(tmp_path, "b")
    assert not trials_path(tmp_path).exists()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    trials_path(tmp_path).write_text("[{}]")
    with pytest.raises(FleetError, match=r"trials\.json is damaged: remove it"):
        kept_trials(tmp_path)
