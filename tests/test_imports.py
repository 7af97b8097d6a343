"""pyproject.toml says which part may import which: here a breach of it is made in a copy, and must be found."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINT = Path(sys.executable).with_name("lint-imports")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for package in ("psserve", "cli"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT, "--no-logo", "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_code_keeps_the_order_of_its_parts(copy: Path) -> None:
    done = _lint(copy)
    assert done.returncode == 0, done.stdout


BREACHES = [
    ("psserve/contracts/tls.py", "import psserve.zoo", "psserve.contracts is not allowed to import psserve.zoo"),
    ("psserve/fleet/__init__.py", "import psserve.router", "psserve.fleet is not allowed to import psserve.router"),
    ("psserve/errors.py", "import torch", "psserve.router is not allowed to import torch"),
    ("psserve/engine/__init__.py", "import aiohttp", "psserve.engine is not allowed to import aiohttp"),
    ("psserve/fleet/ray/agent.py", "import ray", "psserve is not allowed to import ray"),
]


@pytest.fixture(scope="module")
def breached(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """What is said of all of them, made in one copy: to look at the whole code takes seconds."""
    folder = shutil.copytree(copy, tmp_path_factory.mktemp("breached") / "copy")
    for file, statement, _ in BREACHES:
        with (folder / file).open("a") as text:
            text.write(f"\n{statement}\n")
    return _lint(folder)


@pytest.mark.parametrize("said", [said for _, _, said in BREACHES])
def test_a_breach_is_found(breached: subprocess.CompletedProcess[str], said: str) -> None:
    assert breached.returncode == 1
    assert said in breached.stdout


def test_ruff_refuses_an_import_of_the_command_line_by_the_library() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename", "psserve/fleet/breach.py", "-"],
        cwd=ROOT,
        input="import psserve.cli.main\n",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "TID251" in done.stdout
