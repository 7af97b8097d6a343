from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from psserve import __version__
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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_help_imports_nothing_heavy() -> None:
    assert imported_by("--help") & HEAVY == set()


@pytest.mark.parametrize("name", ["launch", "doctor"])
def test_help_of_a_command_imports_nothing_heavy(name: str) -> None:
    assert imported_by(name, "--help") & HEAVY == set()


def test_a_listing_imports_nothing_heavy(session_zoo: Zoo) -> None:
    for arguments in (["models"], ["show", "alpha"], ["path"]):
        assert imported_by(*arguments, "--zoo", str(session_zoo.path)) & HEAVY == set()


def test_a_listing_of_a_zoo_with_a_hub_model_imports_no_http_client(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0" * 40
    snapshots = tmp_path / "hub" / "models--some--tiny" / "snapshots"
    snapshots.mkdir(parents=True)
    (snapshots / commit).symlink_to(zoo.base.path)
    manifest = zoo.path / "zoo.toml"
    manifest.write_text(manifest.read_text().replace('source = "base"', f'source = "some/tiny"\nrevision = "{commit}"'))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert imported_by("models", "--zoo", str(zoo.path)) & (HEAVY | {"httpx", "requests"}) == set()


def test_version_says_what_matters_and_imports_nothing_heavy() -> None:
    assert imported_by("--version") & HEAVY == set()
    lines = CliRunner().invoke(main.cli, ["--version"]).stdout.splitlines()
    assert lines[0] == f"psserve {__version__}"
    assert {"python", "sglang", "torch", "nixl"} <= {line.split()[0] for line in lines}


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_listed_command_exists_and_has_help(name: str) -> None:
    module, _, attribute = main.COMMANDS[name][0].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    result = CliRunner().invoke(command, ["--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.stdout
