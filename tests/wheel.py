"""psserve's wheel, installed apart from the repository: with the suite's packages, but not with its psserve."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILT_FROM = ("psserve", "cli", "model_zoo", "pyproject.toml", "README.md", "LICENSE")


def build_wheel(folder: Path) -> Path:
    """Build the wheel from a copy of the sources: setuptools leaves files beside what it builds from."""
    source = folder / "source"
    source.mkdir()
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            skipped = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(ROOT / name, source / name, ignore=skipped)
        else:
            shutil.copy(ROOT / name, source)
    pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    (wheel,) = folder.glob("psserve-*.whl")
    return wheel


def install_wheel(folder: Path) -> Path:
    """Make an environment in `folder` with the wheel in it. Returns its `bin`."""
    wheel = build_wheel(folder)
    environment = folder / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    pip(str(python), "install", "--no-deps", "--no-index", str(wheel))
    (packages,) = environment.glob("lib/python*/site-packages")
    # A line of a .pth file is a folder, whose own .pth files do not count: what is installed editably there stays out.
    (packages / "of-the-suite.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin"


def pip(python: str, *arguments: str) -> None:
    """Run pip for another Python, without the network."""
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, *arguments, "--quiet", "--disable-pip-version-check"],
        check=True,
        timeout=600,
        env={"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1"},
    )


def outside() -> dict[str, str]:
    """An environment in which nothing leads to the repository."""
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "OMP_NUM_THREADS": "1"}
