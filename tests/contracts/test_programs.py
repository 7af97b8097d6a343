"""Programs of psserve started from a folder that holds files named as modules of Python's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import psserve
from psserve.cli.main import main
from psserve.contracts.programs import arguments_of, exit_status, program
from psserve.engine.settings import WORKER
from psserve.errors import ZooError

IMPORTED = "the file in the working folder was imported\n"
HOSTILE = f"raise SystemExit({IMPORTED.strip()!r})\n"
SPAWNING = """
import multiprocessing
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=print)
    process.start()
    process.join()
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    for name in ("random", "types", "signal", "torch", "sglang", "psserve"):
        (tmp_path / f"{name}.py").write_text(HOSTILE)
    return tmp_path


def said(command: Sequence[str], folder: Path) -> str:
    """What a command writes on standard error, started in this folder."""
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False).stderr


def test_a_command_is_read_back() -> None:
    assert arguments_of(program("psserve.router", "--config", "x"), "psserve.router") == ("--config", "x")
    assert arguments_of(program(WORKER, python="/other/python"), WORKER) == ()
    assert arguments_of(program("psserve.router"), WORKER) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (WORKER, "--disaggregation-mode prefill|decode is missing"),
        ("psserve.router", "--config"),
    ],
)
def test_what_lies_in_the_working_folder_is_not_imported(module: str, expected: str, hostile: Path) -> None:
    assert expected in said(program(module), hostile)


def test_a_plain_command_would_import_it(hostile: Path) -> None:
    assert said((sys.executable, "-m", WORKER), hostile) == IMPORTED


def test_processes_that_python_starts_by_itself_look_there_no_more_than_ours(
    hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SGLang spawns its schedulers so, and `psserve simulate` its helpers."""
    script = hostile / "elsewhere" / "spawning.py"
    script.parent.mkdir()
    script.write_text(SPAWNING)
    assert said((sys.executable, "-P", str(script)), hostile) == ""
    assert IMPORTED in said((sys.executable, str(script)), hostile)
    with monkeypatch.context() as command_line:
        command_line.setenv("PYTHONSAFEPATH", "")
        command_line.setattr(sys, "argv", ["psserve", "--help"])
        with pytest.raises(SystemExit):
            main()
        assert said((sys.executable, str(script)), hostile) == ""


def test_a_folder_that_the_user_names_is_looked_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_own.py").write_text("raise SystemExit('the user wants this one')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert said(program("users_own"), Path("/")) == "the user wants this one\n"


def test_no_program_is_started_otherwise() -> None:
    sources = Path(psserve.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if '"-m", "psserve' in path.read_text()] == []


def test_a_small_programs_end_says_what_went_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise ZooError("the zoo is not there")

    assert (exit_status(fails), exit_status(lambda: None)) == (1, 0)
    assert capsys.readouterr().err == "the zoo is not there\n"
