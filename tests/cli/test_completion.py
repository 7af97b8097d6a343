"""Shell completion: the protocol, and bash itself where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from psserve.cli.completion import SHELLS
from psserve.cli.main import COMMANDS, cli
from tests.cli.test_help import HEAVY, imported_by


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    for name in ("code", "maths", "math"):
        (tmp_path / "modules" / name).mkdir(parents=True)
        (tmp_path / "modules" / name / "module.toml").touch()
    (tmp_path / "modules" / "mangled").mkdir()
    (tmp_path / ".run" / "logs").mkdir(parents=True)
    (tmp_path / ".run" / "logs" / "router.log").touch()
    return tmp_path


def complete(*words: str, zoo: Path | None = None) -> list[str]:
    """What is offered for the last of `words`."""
    line = {"COMP_WORDS": " ".join(["psserve", *words]), "COMP_CWORD": str(len(words))}
    env = {"_PSSERVE_COMPLETE": "bash_complete", **line, "PSSERVE_ZOO": str(zoo)}
    result = CliRunner().invoke(cli, prog_name="psserve", env=env)
    return [item.partition(",")[2] for item in result.output.splitlines()]


def test_commands() -> None:
    assert complete("l") == ["launch", "logs"]
    assert complete("") == list(COMMANDS)
    assert complete("--v") == ["--version"]


def test_names_of_modules(zoo: Path) -> None:
    assert complete("chat", "ma", zoo=zoo) == ["math", "maths"]
    assert complete("logs", "", zoo=zoo) == ["router", "code", "math", "maths"]


def test_the_zoo_that_was_given_counts(zoo: Path, tmp_path: Path) -> None:
    assert complete("chat", "--zoo", str(zoo), "c", zoo=tmp_path / "other") == ["code"]


def test_completing_imports_nothing_heavy(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("COMP_WORDS", "psserve chat m"), ("COMP_CWORD", "2"), ("PSSERVE_ZOO", str(zoo))):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("_PSSERVE_COMPLETE", "bash_complete")
    assert imported_by() & (HEAVY | {"pydantic", "rich", "prompt_toolkit"}) == set()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_every_shell(shell: str) -> None:
    result = CliRunner().invoke(cli, ["completion", shell])
    assert result.exit_code == 0
    assert f"_PSSERVE_COMPLETE={shell}_complete" in result.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes(zoo: Path) -> None:
    """The script as a user installs it, called as bash calls it."""
    script = f"""
        source <({Path(sys.executable).parent}/psserve completion bash)
        complete -p psserve
        COMP_WORDS=(psserve chat ma) COMP_CWORD=2
        _psserve_completion psserve
        echo "${{COMPREPLY[@]}}"
    """
    env = {**os.environ, "PSSERVE_ZOO": str(zoo), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines() == ["complete -o nosort -F _psserve_completion psserve", "math maths"]
