"""psserve from a checkout that is not installed, found by SGLang all the same.

SGLang finds psserve's plugin through the entry points of an installed distribution, and `psserve.cli` is the folder
cli/ only once installed. Where a checkout is merely on PYTHONPATH, a temporary folder stands in for the installation:

    FOLDER/psserve/                links to everything in psserve/, and cli -> cli/
    FOLDER/psserve-0.dist-info/    METADATA and entry_points.txt, from pyproject.toml

It comes first on sys.path and on PYTHONPATH, which servers inherit.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_GROUPS = ("sglang.srt.plugins", "sglang.srt.platforms")
_PROBE = f"""
import psserve.cli.main
from importlib.metadata import distribution
assert {set(_GROUPS)} <= {{found.group for found in distribution("psserve").entry_points}}
"""


@contextlib.contextmanager
def importable(root: Path) -> Iterator[bool]:
    """Make the psserve of the checkout `root` usable as if installed; yields whether that took a stand-in.

    Enter it before psserve is first imported.
    """
    if is_installed():
        yield False
        return
    with tempfile.TemporaryDirectory(prefix="psserve-install-") as directory:
        folder = Path(directory)
        write_stand_in(root, folder)
        sys.path.insert(0, str(folder))
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), before)))
        try:
            yield True
        finally:
            sys.path.remove(str(folder))
            os.environ.pop("PYTHONPATH")
            if before is not None:
                os.environ["PYTHONPATH"] = before


def is_installed() -> bool:
    """Whether other Python processes find psserve's command line, and its entry points for SGLang."""
    return subprocess.run([sys.executable, "-P", "-c", _PROBE], capture_output=True, check=False).returncode == 0


def write_stand_in(root: Path, folder: Path) -> None:
    """Write the folder that the module's docstring draws."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    package, info = folder / "psserve", folder / "psserve-0.dist-info"
    package.mkdir(parents=True)
    for entry in (root / "psserve").iterdir():
        if entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry.resolve())
    (package / "cli").symlink_to((root / "cli").resolve())
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: psserve\nVersion: 0\n")
    (info / "entry_points.txt").write_text(entry_points_text(project))


def entry_points_text(project: Mapping[str, Any]) -> str:
    """entry_points.txt for the `[project]` table of a pyproject.toml."""
    lines: list[str] = []
    for group in _GROUPS:
        lines.append(f"[{group}]")
        lines += [f"{name} = {place}" for name, place in project["entry-points"][group].items()]
    return "\n".join(lines) + "\n"
