from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from scripts.measuring.installation import entry_points_text, importable, write_stand_in

ROOT = Path(__file__).parents[2]
PROBE = """
import psserve.cli.main
from importlib.metadata import distribution
print(psserve.cli.main.__file__)
for found in sorted(distribution("psserve").entry_points, key=lambda found: found.group):
    print(found.group, found.name, found.value)
"""


def test_the_stand_in_is_found_as_an_installation_of_the_checkout(tmp_path: Path) -> None:
    write_stand_in(ROOT, tmp_path)
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROBE],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        str(tmp_path / "psserve" / "cli" / "main.py"),
        "sglang.srt.platforms psserve_cpu psserve.engine.cpu.platform:activate",
        "sglang.srt.plugins psserve psserve.engine.plugin:load",
    ]


def test_entry_points_are_those_of_the_project() -> None:
    project = {
        "entry-points": {"sglang.srt.plugins": {"ours": "a.b:load"}, "sglang.srt.platforms": {"cpu": "a.c:activate"}}
    }
    assert entry_points_text(project) == (
        "[sglang.srt.plugins]\nours = a.b:load\n[sglang.srt.platforms]\ncpu = a.c:activate\n"
    )


def test_the_project_declares_both_groups() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert entry_points_text(project).count("psserve.engine") == 2


def test_an_installed_psserve_needs_no_stand_in() -> None:
    before = (list(sys.path), os.environ.get("PYTHONPATH"))
    with importable(ROOT) as stand_in:
        assert not stand_in
        assert (sys.path, os.environ.get("PYTHONPATH")) == before


def test_a_stand_in_comes_first_and_is_taken_away_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.measuring.installation.is_installed", lambda: False)
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    with importable(ROOT) as stand_in:
        folder = sys.path[0]
        assert stand_in
        assert os.environ["PYTHONPATH"] == f"{folder}{os.pathsep}/elsewhere"
    assert os.environ["PYTHONPATH"] == "/elsewhere"
    assert folder not in sys.path
    assert not Path(folder).exists()
