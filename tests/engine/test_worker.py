"""The worker's command line."""

from __future__ import annotations

import pytest

from psserve.engine.settings import Role
from psserve.engine.worker import main, role_of, with_key
from psserve.errors import UsageError


@pytest.mark.parametrize(
    ("arguments", "role"),
    [
        (["--disaggregation-mode", "prefill"], Role.PREFILL),
        (["--port", "1", "--disaggregation-mode=decode"], Role.DECODE),
    ],
)
def test_the_role_comes_from_sglangs_own_option(arguments: list[str], role: Role) -> None:
    assert role_of(arguments) is role


@pytest.mark.parametrize("arguments", [[], ["--disaggregation-mode"], ["--disaggregation-mode", "null"]])
def test_a_worker_without_a_role_is_refused(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match="disaggregation-mode"):
        role_of(arguments)


def test_a_users_mistake_gives_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("psserve: error: --disaggregation-mode")


def test_the_key_is_taken_out_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSSERVE_WORKER_KEY", "secret")
    assert with_key(["--port", "1"]) == ["--port", "1", "--api-key", "secret"]
    assert with_key(["--port", "1"]) == ["--port", "1"]
