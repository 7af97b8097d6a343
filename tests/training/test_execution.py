"""Programs of unknown worth, among them bad ones."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from psserve.training import execution
from psserve.training.execution import passes


def test_a_right_program_passes() -> None:
    assert passes("def f(x):\n    return x + 1", "assert f(1) == 2")


@pytest.mark.parametrize(
    "source",
    [
        "f = lambda x: x",
        "import sys; sys.exit(0)",
        "raise SystemExit(77)",
        "import os; os._exit(0)",
        "import os; os._exit(1)",
        "import os; os.abort()",
        "def f(x): return f(x)",
        "x = 'a' * (2 << 30)",
        "open('file', 'w').write('x')",
        "import os; os.mkdir('x')",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.fork()",
        "import os, signal; os.kill(os.getppid(), signal.SIGTERM)",
        "import socket; socket.socket()",
        "import ctypes; ctypes.CDLL(None)",
    ],
)
def test_a_program_that_does_not_do_its_task_fails(source: str) -> None:
    assert not passes(source, "assert f(1) == 2")


@pytest.mark.parametrize("source", ["while True: pass", "import time; time.sleep(60)", "while True: print('x' * 1000)"])
def test_an_endless_program_is_ended(source: str) -> None:
    assert not passes(source, "", time_limit_s=0.5)


def test_it_sees_neither_environment_nor_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSSERVE_SECRET", "x")
    assert passes("import os", "assert 'PSSERVE_SECRET' not in os.environ and os.listdir() == []")


def test_it_cannot_import_what_is_installed_here() -> None:
    assert not passes("import click", "")


def test_the_guard_alone_stops_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "network_less", lambda: ())
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not passes(f"import socket\nsocket.create_connection(('127.0.0.1', {port}))", "")


def test_the_name_space_alone_stops_the_network() -> None:
    if not execution.network_less():
        pytest.skip("this system gives no network namespace to a user")
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))"
        inside = [*execution.network_less(), sys.executable, "-c", program]
        assert subprocess.run(inside, stderr=subprocess.DEVNULL, check=False).returncode != 0


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert passes("x = 1", "assert x")
    assert list(tmp_path.iterdir()) == []
