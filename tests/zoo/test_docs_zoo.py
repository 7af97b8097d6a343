"""The section "Add your own fine-tune" of docs/zoo.md, followed to the letter."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from psserve import torchvision_ops
from psserve.cli.main import cli
from psserve.zoo import Zoo

DOCS = Path(__file__).parents[2] / "docs" / "zoo.md"


def steps() -> list[tuple[str, str]]:
    """The section's blocks, in order: language and text."""
    section = DOCS.read_text().partition("## Add your own fine-tune")[2].partition("\n## ")[0]
    return re.findall(r"```(sh|python)\n(.*?)```", section, re.DOTALL)


def test_the_section_works_as_it_is_written(session_zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision_ops.declare_missing()  # what a user's own installation does not need
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PSSERVE_ZOO", raising=False)
    shutil.copytree(session_zoo.base.path, "base")
    for language, text in steps():
        if language == "python":
            exec(text, {})
            continue
        for line in text.splitlines():
            result = CliRunner().invoke(cli, shlex.split(line)[1:])
            assert result.exit_code == 0, (line, result.stderr)
    zoo = Zoo.open(tmp_path / "model_zoo")
    assert [(module.name, module.kind, module.store) for module in zoo.modules()] == [
        ("products", "naive", "delta"),
        ("sums", "naive", "adapter"),
    ]
    assert not [note for module in zoo.modules() for note in module.notes]
