"""The demo zoo as `make run` serves it, with a module of one's own beside: the README's section, followed literally."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from psserve.demo.tasks import TASKS, held_out_items
from psserve.engine.versions import installed_sglang, runs_one_pool_unasked
from psserve.training.answers import zoo_answerer
from psserve.training.fleet_answers import FleetAnswerer
from psserve.training.scorers import SCORERS
from psserve.zoo import Zoo
from tests.e2e.fleet import RunningFleet, launched

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
ITEMS = 20
RIGHT = 16
"""Of so few items, at least."""


def readme_commands() -> str:
    """What the section "Train a module" tells to type before `psserve launch`."""
    section = (ROOT / "README.md").read_text().partition("## Train a module")[2].partition("\n## ")[0]
    return re.findall(r"```sh\n(.*?)^psserve launch$", section, re.DOTALL | re.MULTILINE)[0]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """A copy of the demo zoo, without what was added to it, after the README's commands."""
    folder = tmp_path_factory.mktemp("demo")
    for name in ("model_zoo", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=_added)
    (folder / ".venv").symlink_to(sys.prefix)
    environment = {name: value for name, value in os.environ.items() if name != "PSSERVE_ZOO"}
    subprocess.run(["bash", "-ec", readme_commands()], check=True, cwd=folder, env=environment)
    return Zoo.open(folder / "model_zoo")


def _added(folder: str, names: list[str]) -> list[str]:
    """What is not of the repository: whoever followed the README has trained its module already."""
    of_users = set() if Path(folder).name != "modules" else set(names) - set(TASKS)
    return [name for name in names if name.startswith(".") or name in of_users]


@pytest.fixture(scope="module")
def fleet(zoo: Zoo) -> Iterator[RunningFleet]:
    with launched(zoo.path, "--transfer", "auto") as fleet:
        assert fleet.config["one_pool"] == runs_one_pool_unasked(installed_sglang() or "")
        yield fleet


@pytest.mark.parametrize("name", TASKS)
def test_served_answers_score_as_those_of_the_reference(zoo: Zoo, fleet: RunningFleet, name: str) -> None:
    task = TASKS[name]
    items = held_out_items(name, ITEMS, seed=2)
    served, computed = (
        SCORERS[task.scorer].judge_all(items, answerer.answer(items, task.longest_answer))
        for answerer in (FleetAnswerer(fleet.url, name), zoo_answerer(zoo, name))
    )
    assert served == computed
    assert sum(served) >= RIGHT


def test_a_module_of_ones_own_answers(fleet: RunningFleet) -> None:
    client = OpenAI(base_url=f"{fleet.url}/v1", api_key="none")
    question = "There are 12 lemons in the room of Zoe."
    answer = client.chat.completions.create(
        model="records", messages=[{"role": "user", "content": question}], temperature=0
    )
    assert json.loads(answer.choices[0].message.content or "") == {"name": "Zoe", "things": "lemons", "count": 12}


def test_tool_calls_have_openais_form(fleet: RunningFleet) -> None:
    client = OpenAI(base_url=f"{fleet.url}/v1", api_key="none")
    right = 0
    for item in held_out_items("tools", ITEMS):
        answer = client.chat.completions.create(
            model="tools",
            messages=list(item.prompt),  # type: ignore[arg-type]
            tools=list(item.tools),  # type: ignore[arg-type]
            temperature=0,
        )
        called = [(call.function.name, call.function.arguments) for call in answer.choices[0].message.tool_calls or []]
        wanted = item.messages[-1]["tool_calls"][0]["function"]
        right += [(name, json.loads(text)) for name, text in called] == [(wanted["name"], wanted["arguments"])]
    assert right >= RIGHT
