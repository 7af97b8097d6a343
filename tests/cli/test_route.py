"""psserve route as a user types it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w

from psserve.zoo import Zoo

from .zoo_commands import fails, run

ROOT = Path(__file__).parents[2]
TASKS = {
    "alpha": ("word problems with numbers", "Ann has 3 pens and buys 4 more. How many pens does she have?"),
    "beta": ("write Python functions, and call tools", "Write a Python function that adds two numbers."),
}


@pytest.fixture
def told(zoo: Zoo) -> Path:
    """A zoo whose manifests say what the modules are for."""
    for name, (task, example) in TASKS.items():
        manifest = zoo.module(name)
        document = manifest.model_dump(mode="json", exclude={"path"}, exclude_none=True)
        document |= {"task": task, "examples": [example], "aliases": [f"{name}-1"]}
        (manifest.path / "module.toml").write_text(tomli_w.dumps(document))
    return zoo.path


def test_scores_and_reasons(told: Path) -> None:
    result = run("route", "How many pens are left?", "--zoo", told)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0].startswith("alpha\t0.")
    assert lines[2].startswith("(none of them)\t")
    assert "alpha answers: its score" in lines[4]
    assert "'pens'" in lines[5]


def test_the_readmes_example_goes_where_it_says() -> None:
    readme = (ROOT / "README.md").read_text()
    found = re.search(r'^psserve route "(.+)"\s+# .*\((\w+)\)', readme, re.M)
    assert found is not None
    text, module = found.groups()
    assert f"\n{module} answers: its score" in run("route", text, "--zoo", ROOT / "model_zoo").stdout


def test_json(told: Path) -> None:
    document = json.loads(run("route", "Write a Python function", "--json", "--zoo", told).stdout)
    assert (document["module"], document["outcome"], document["threshold"]) == ("beta", "clear", 0.25)
    assert set(document["scores"]) == {"alpha", "beta"}
    assert {"feature", "weight"} == set(document["evidence"][0])


def test_unclear_request_is_refused_or_goes_to_the_default(told: Path) -> None:
    assert "refused (400 task_unclear)" in run("route", "Good morning!", "--zoo", told).stdout
    answer = run("route", "Good morning!", "--default-module", "alpha-1", "--zoo", told).stdout
    assert "alpha answers: it is the default" in answer


def test_tools_are_evidence(told: Path) -> None:
    document = json.loads(run("route", "Good morning!", "--tools", "--json", "--zoo", told).stdout)
    assert document["module"] == "beta"
    assert document["evidence"][0]["feature"] == "(tools are offered)"


def test_the_zoos_fleet_toml_counts(told: Path) -> None:
    (told / "fleet.toml").write_text('modules = ["beta"]\n[router]\ntask_threshold = 0.9\n')
    document = json.loads(run("route", "anything", "--json", "--zoo", told).stdout)
    assert (document["threshold"], document["scores"]) == (0.9, {"beta": 1.0})


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--task-classifier", "nobody"], 2, "installed are base-model, tfidf"),
        (["--task-classifier", "none"], 2, "there is no `auto`"),
        (["--task-threshold", "2"], 2, "--task-threshold 2.0: give at most 1"),
        (["--default-module", "nobody"], 1, "--default-module nobody: not served (served: alpha"),
    ],
)
def test_what_makes_no_sense_is_refused(told: Path, arguments: list[str], code: int, message: str) -> None:
    assert message in fails(run("route", "hello", *arguments, "--zoo", told), code)


def test_base_model_needs_a_running_fleet(told: Path) -> None:
    (told / "fleet.toml").write_text("serve_base = true\n")
    line = fails(run("route", "hello", "--task-classifier", "base-model", "--zoo", told), 2)
    assert "running fleet" in line


def test_no_traceback_without_a_zoo(tmp_path: Path) -> None:
    fails(run("route", "hello", "--zoo", tmp_path))


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from psserve.cli.route import command; print({'sklearn', 'numpy', 'aiohttp'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "set()"
