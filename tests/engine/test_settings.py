"""What worker processes read from their environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from psserve.engine.settings import NegativeControl, Role, Settings
from psserve.errors import EngineError


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "ROLE",
        "NEGATIVE_CONTROL",
        "ALLOW_UNTESTED_SGLANG",
        "CHECK_PURITY",
        "FEW_CORES",
        "ADAPTERS",
        "ONE_POOL",
    ):
        monkeypatch.delenv(f"PSSERVE_{name}", raising=False)


def test_a_process_without_a_role_is_no_worker() -> None:
    assert Settings.from_environment() == Settings(None, False, NegativeControl.NONE)


@pytest.mark.parametrize("role", list(Role))
def test_the_role_is_read(role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSSERVE_ROLE", role.value)
    assert Settings.from_environment().role is role


def test_an_unknown_role_is_refused_with_the_allowed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSSERVE_ROLE", "router")
    with pytest.raises(EngineError, match=r"PSSERVE_ROLE='router'.*'prefill', 'decode'"):
        Settings.from_environment()


@pytest.mark.parametrize(("value", "asked"), [("1", True), ("0", False), ("", False)])
def test_a_check_of_the_tree_is_asked_for_by_1(value: str, asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSSERVE_CHECK_PURITY", value)
    assert Settings.from_environment().check_purity is asked


@pytest.mark.parametrize(("value", "few"), [("1", True), ("0", False), ("", False)])
def test_few_cores_are_said_by_1(value: str, few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSSERVE_FEW_CORES", value)
    assert Settings.from_environment().few_cores is few


@pytest.mark.parametrize(("value", "folder"), [("/zoo/adapters", Path("/zoo/adapters")), ("", None)])
def test_a_folder_of_adapters_is_read(value: str, folder: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSSERVE_ADAPTERS", value)
    assert Settings.from_environment().adapters == folder


@pytest.mark.parametrize(("value", "asked"), [("1", True), ("0", False), ("", False)])
def test_one_pool_is_asked_for_by_1(value: str, asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSSERVE_ONE_POOL", value)
    assert Settings.from_environment().one_pool is asked
