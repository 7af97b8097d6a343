"""The process that forks servers, without SGLang."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from psserve.engine import preload, worker
from psserve.engine.preload import StartRequest


def end_of(main: object, log: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a forked server that runs `main`."""
    monkeypatch.setattr(worker, "main", main)
    monkeypatch.setattr(sys, "stderr", open(2, "w", closefd=False))  # noqa: SIM115 - pytest's own is another file
    pid = preload._fork(StartRequest("decode-a-0", ["--port", "1"], {"PATH": "/bin"}, str(log)))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_what_a_server_dies_of_is_in_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: list[str]) -> int:
        raise ValueError(f"cannot serve {arguments}")

    assert end_of(broken, tmp_path / "log", monkeypatch) == 1
    assert (tmp_path / "log").read_text().endswith("ValueError: cannot serve ['--port', '1']\n")


@pytest.mark.parametrize(("code", "status"), [(2, 2), (None, 0), ("a message", 1)])
def test_a_server_that_exits_keeps_its_status(
    code: int | str | None, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaving(arguments: list[str]) -> int:
        raise SystemExit(code)

    assert end_of(leaving, tmp_path / "log", monkeypatch) == status
