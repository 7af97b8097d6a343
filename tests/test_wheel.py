"""The wheel: what is in it, and that it works without the repository."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.wheel import ROOT, install_wheel, outside

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_wheel(tmp_path_factory.mktemp("wheel"))


def run(installed: Path, folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [installed / program, *arguments], cwd=folder, env=outside(), capture_output=True, text=True, timeout=300
    )


def test_it_is_not_the_repositorys(installed: Path, tmp_path: Path) -> None:
    script = "import psserve, psserve.cli.main as main; print(psserve.__file__, main.__file__)"
    for file in run(installed, tmp_path, "python", "-c", script).stdout.split():
        assert Path(file).is_relative_to(installed.parent)


def test_every_command_is_there(installed: Path, tmp_path: Path) -> None:
    script = (
        "import importlib; from psserve.cli.main import COMMANDS\n"
        "for place, _ in COMMANDS.values(): importlib.import_module(place.partition(':')[0])"
    )
    done = run(installed, tmp_path, "python", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    assert "launch" in run(installed, tmp_path, "psserve", "--help").stdout


def test_all_data_files_came_along(installed: Path) -> None:
    def data(folder: Path) -> set[str]:
        files = (file for file in folder.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc"))
        return {str(file.relative_to(folder)) for file in files}

    (packages,) = installed.parent.glob("lib/python*/site-packages")
    zoo = {f"demo/zoo/{name}" for name in data(ROOT / "model_zoo") if not name.startswith(".")}
    committed = {name for name in zoo if "/modules/" not in name or name.split("/")[3] in ("code", "math", "tools")}
    assert data(packages / "psserve") == data(ROOT / "psserve") | committed


def test_sglang_finds_its_plugins(installed: Path, tmp_path: Path) -> None:
    script = (
        "from importlib.metadata import entry_points\n"
        "for group in ('sglang.srt.plugins', 'sglang.srt.platforms'):\n"
        "    for entry in entry_points(group=group): print(entry.value)"
    )
    done = run(installed, tmp_path, "python", "-c", script)
    assert done.stdout.split() == ["psserve.engine.plugin:load", "psserve.engine.cpu.platform:activate"], done.stderr


def test_the_demo_is_written_where_it_is_asked_for_and_planned(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "psserve", "demo", "--dry-run", "--json", "--port", "0")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["zoo"] == str(tmp_path / "model_zoo")
    assert [server["module"] for server in plan["servers"]] == [None, "code", "math", "tools", None]
    assert all(server["command"][0] == str(installed / "python") for server in plan["servers"])
    assert run(installed, tmp_path, "psserve", "verify").returncode == 0


def test_a_demo_that_is_there_stays_as_it_is(installed: Path, tmp_path: Path) -> None:
    first = run(installed, tmp_path, "psserve", "demo", "--zoo", "zoo", "--dry-run", "--port", "0")
    (tmp_path / "zoo" / "fleet.toml").write_text('modules = ["math"]\n')
    again = run(installed, tmp_path, "psserve", "demo", "--zoo", "zoo", "--dry-run", "--port", "0")
    assert "the demo zoo is in zoo" in first.stderr
    assert (again.returncode, again.stderr.count("the demo zoo is in")) == (0, 0)
    assert "decode-math-0" in again.stdout
    assert "decode-code-0" not in again.stdout


def test_another_zoo_is_not_taken_for_the_demo(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "model_zoo").mkdir()
    (tmp_path / "model_zoo" / "notes.txt").write_text("mine")
    done = run(installed, tmp_path, "psserve", "demo", "--dry-run")
    assert done.returncode == 1
    assert done.stderr == "psserve: error: model_zoo: not empty, and no zoo: give the demo a place with --zoo DIR\n"


def test_its_constraints_are_the_locks_pins(installed: Path, tmp_path: Path) -> None:
    path = Path(run(installed, tmp_path, "psserve", "constraints").stdout.strip())
    assert path.is_relative_to(installed.parent)
    locked: set[str] = set()
    for lock in ("gpu", "train"):
        text = (ROOT / "requirements" / f"{lock}.txt").read_text()
        locked |= {f"{name}=={version}" for name, version in re.findall(r"^([\w.-]+)(?:\[.*\])?==(\S+)", text, re.M)}
    assert set(path.read_text().split()) == {pin for pin in locked if not pin.startswith("torch==")}


def test_the_extra_for_cpus_is_what_sglang_declares_less_what_is_excluded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    excluded = {line.strip() for line in (ROOT / "requirements" / "cpu.exclude").read_text().splitlines()}
    declared = [Requirement(text) for text in requires("sglang") or []]
    wanted = {
        canonicalize_name(one.name): str(one.specifier)
        for one in declared
        if one.marker is None or one.marker.evaluate({"extra": "", "platform_machine": "x86_64"})
    }
    own = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    extra = {
        canonicalize_name(one.name): str(one.specifier)
        for one in map(Requirement, project["optional-dependencies"]["cpu"])
    }
    # Beside them: torch of any build, what SGLang imports undeclared, NIXL's build for torch's CUDA. torchvision comes
    # without its dependencies, as SGLang does.
    beside = {"torch", "dill", "jsonschema", "nixl-cu13"}
    assert wanted.keys() - excluded - own - {"torchvision"} == extra.keys() - beside - {"torch"}
    pinned = {name: version for name, version in wanted.items() if version.startswith("==")}
    assert {name: extra[name] for name in extra.keys() & pinned.keys() - beside} == {
        name: pinned[name] for name in extra.keys() & pinned.keys() - beside
    }


def test_every_extra_takes_the_locked_versions() -> None:
    """Among them Ray, which is no constraint: the tools of tests have it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    locked = {
        canonicalize_name(name): version
        for lock in ("gpu", "train", "dev", "torch")
        for name, version in re.findall(
            r"^([\w.-]+)(?:\[.*\])?==(\S+)", (ROOT / "requirements" / f"{lock}.txt").read_text(), re.M
        )
    }
    wanted = [Requirement(text) for texts in (project["dependencies"], *extras.values()) for text in texts]
    assert {"cpu", "gpu", "train", "ray"} <= extras.keys()
    refused = [one for one in wanted if not one.specifier.contains(locked[canonicalize_name(one.name)])]
    assert refused == []


def test_docs_name_the_locked_versions() -> None:
    text = (ROOT / "docs" / "install.md").read_text()
    locked = (ROOT / "psserve" / "constraints.txt").read_text().split()
    named = [pin for pin in re.findall(r"\b[a-z]+==[\d.]+\d", text) if not pin.startswith("torch==")]
    assert len(named) == 3
    assert set(named) <= set(locked)
    assert re.search(r"^torch==\S+", (ROOT / "requirements" / "torch.txt").read_text(), re.M)[0] in text  # type: ignore[index]
