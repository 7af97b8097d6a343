from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_generated_docs_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/docs.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_readme_names_only_targets_that_make_has() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)\b(?=`|  |\n)", (ROOT / "README.md").read_text()))
    assert named
    assert named <= targets


DOCS = sorted(path for name in ("*.md", "docs/**/*.md", "deploy/*.md") for path in ROOT.glob(name))
PARTS = "cli|deploy|docs|examples|model_zoo|psserve|requirements|scripts|tests"


def _known(path: str) -> bool:
    """Whether the repository has such a file or folder. Of gpu-NAME.json, which a reader makes: such a folder."""
    found = ROOT.glob(re.sub(r"[^/]*NAME.*", "", path).rstrip("./"))
    return any(file.resolve().is_relative_to(ROOT) for file in found)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_docs_point_at_is_there(path: Path) -> None:
    text = path.read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if not _known(os.path.relpath(path.parent / link, ROOT))]
    missing += [name for name in re.findall(rf"(?<![\w/.-])(?:{PARTS})/[\w./*-]+", text) if not _known(name)]
    missing += [name for name in re.findall(r"`(\w+\.py)`", text) if not _known(f"*/**/{name}")]
    tests = [name.split("/") for name in re.findall(r"`(\w+/(?:\w+/)*test_\w+)`", text)]
    missing += ["/".join(name) for name in tests if not _known(f"tests/{name[0]}/**/{name[-1]}.py")]
    assert missing == []


@pytest.mark.parametrize("part", ["psserve", "cli", "scripts"])
def test_what_code_points_at_is_there(part: str) -> None:
    pointer = re.compile(rf"(?<![\w/.{{-])(?:{PARTS}|\.\.)/[\w./-]+\.(?:md|py|sh|toml)\b")
    missing = {
        str(path.relative_to(ROOT)): gone
        for path in sorted((ROOT / part).rglob("*.py"))
        if (gone := [name for name in pointer.findall(path.read_text()) if not _known(name)])
    }
    assert missing == {}
