"""Modules as their manifests describe them, and requests of which it is known whose task they are."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from psserve.demo.tasks import TASKS, example_requests, held_out_items
from psserve.router.task_routing.classifier import TaskModule
from psserve.training.conversation import Conversation
from tests.router.task_zoo import EVERYDAY_PARTS, everyday_requests, twenty_two_modules

DEMO_REQUESTS = 500
MOST_WRONG_AS_SENT = 3.0
MOST_WRONG_EVERYDAY = 10.0


@dataclass(frozen=True)
class Asked:
    """A request, and the module whose task it is."""

    text: str
    module: str
    has_tools: bool = False


@dataclass(frozen=True)
class TaskSet:
    """Modules to choose from, with requests in named parts."""

    name: str
    modules: tuple[TaskModule, ...]
    parts: dict[str, list[Asked]]
    none_of_them: tuple[str, ...]
    most_wrong: Mapping[str, float] = field(default_factory=dict)
    """Part -> the promise: in percent, how many of its requests at most do not reach their module."""


def demo_set() -> TaskSet:
    """The demo zoo: description and examples, as its manifests have them."""
    modules = tuple(
        TaskModule(name, task=task.description, examples=example_requests(name)) for name, task in TASKS.items()
    )
    parts: dict[str, list[Asked]] = {}
    for name in TASKS:
        examples = example_requests(name)
        held_out = [item for item in held_out_items(name, DEMO_REQUESTS, seed=0) if _question(item) not in examples]
        parts[f"{name}, as sent"] = [Asked(_question(item), name, bool(item.tools)) for item in held_out]
        parts[f"{name}, tools {'not ' if held_out[0].tools else ''}offered"] = [
            Asked(_question(item), name, not item.tools) for item in held_out
        ]
    most_wrong = {part: MOST_WRONG_AS_SENT for part in parts if part.endswith("as sent")}
    for part in EVERYDAY_PARTS:
        asked = [Asked(text, name) for text, name in everyday_requests(part)]
        parts[f"everyday, {part}"] = asked
        parts[f"everyday, {part}, tools offered"] = [Asked(one.text, one.module, has_tools=True) for one in asked]
        most_wrong |= {f"everyday, {part}": MOST_WRONG_EVERYDAY}
    return TaskSet("demo zoo", modules, parts, twenty_two_modules().none_of_them, most_wrong)


def specialists_set() -> TaskSet:
    """22 specialists, written by hand."""
    zoo = twenty_two_modules()
    asked = [Asked(text, module) for text, module in zoo.held_out]
    return TaskSet("22 specialists", zoo.modules, {"requests": asked}, zoo.none_of_them)


def clinc_set(file: Path, modules: int, examples: int) -> TaskSet:
    """Intents of CLINC150 as modules: the intent's name is the task text. Out-of-scope questions are nobody's task."""
    document = json.loads(file.read_text(encoding="utf-8"))
    rng = random.Random(f"{modules} {examples}")
    training: dict[str, list[str]] = defaultdict(list)
    for text, intent in document["train"]:
        training[intent].append(text)
    chosen = rng.sample(sorted(training), modules)
    made = tuple(
        TaskModule(
            intent.replace("_", "-"),
            task=intent.replace("_", " "),
            examples=tuple(rng.sample(training[intent], examples)),
        )
        for intent in chosen
    )
    asked = [Asked(text, intent.replace("_", "-")) for text, intent in document["test"] if intent in chosen]
    strangers = tuple(text for text, _ in document["oos_test"])
    return TaskSet(f"CLINC150, {modules} intents of {examples} examples", made, {"requests": asked}, strangers)


def _question(item: Conversation) -> str:
    return str(item.messages[0]["content"])
