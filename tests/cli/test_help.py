from __future__ import annotations

import importlib
import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from psserve.cli import main
from psserve.zoo import Zoo

HEAVY = {"aiohttp", "numpy", "safetensors", "sglang", "torch", "transformers"}


def imported_by(*arguments: str) -> set[str]:
    """Top-level packages that a fresh `psserve ARGUMENTS` has imported when it ends."""
    code = (
        "import atexit, json, sys\n"
        "from psserve.cli.main import main\n"
        f"sys.argv = ['psserve', *{list(arguments)!r}]\n"
        "names = lambda: sorted({name.partition('.')[0] for name in sys.modules})\n"
        "atexit.register(lambda: print(json.dumps(names()), file=sys.stderr))\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_help_imports_nothing_heavy() -> None:
    assert imported_by("--help") & HEAVY == set()


@pytest.mark.parametrize("name", ["launch", "doctor"])
def test_help_of_a_command_imports_nothing_heavy(name: str) -> None:
    assert imported_by(name, "--help") & HEAVY == set()


def test_a_listing_imports_nothing_heavy(session_zoo: Zoo) -> None:
    for arguments in (["models"], ["show", "alpha"], ["path"]):
        assert imported_by(*arguments, "--zoo", str(session_zoo.path)) & HEAVY == set()


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_listed_command_exists_and_has_help(name: str) -> None:
    module, _, attribute = main.COMMANDS[name][0].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    result = CliRunner().invoke(command, ["--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.stdout
