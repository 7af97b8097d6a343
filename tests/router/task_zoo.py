"""Modules to choose from in tests and benchmarks of task routing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from psserve.router.task_routing.classifier import TaskModule
from psserve.router.task_routing.tfidf import TfidfClassifier
from psserve.router.task_routing.training import train_classifier

FILE = Path(__file__).with_name("twenty_two_modules.json")
EVERYDAY = Path(__file__).with_name("everyday_requests.json")
EVERYDAY_PARTS = ("development", "held out")


@dataclass(frozen=True)
class TaskZoo:
    """Modules, requests of which it is known whose task they are, and requests that are nobody's."""

    modules: tuple[TaskModule, ...]
    held_out: tuple[tuple[str, str], ...]
    """(text, module)"""
    none_of_them: tuple[str, ...]


@cache
def twenty_two_modules() -> TaskZoo:
    """Everyday specialists with a task text and three examples each, written by hand."""
    document = json.loads(FILE.read_text(encoding="utf-8"))
    entries = document["modules"].items()
    return TaskZoo(
        tuple(TaskModule(name, task=entry["task"], examples=tuple(entry["examples"])) for name, entry in entries),
        tuple((text, name) for name, entry in entries for text in entry["held_out"]),
        tuple(document["none_of_them"]),
    )


def everyday_requests(part: str) -> list[tuple[str, str]]:
    """(text, module): what people might ask of the demo zoo's modules in their own words, 50 requests each.

    Nothing in psserve was made with those held out at hand.
    """
    document = json.loads(EVERYDAY.read_text(encoding="utf-8"))
    return [(text, module) for module, parts in document.items() for text in parts[part]]


@cache
def trained(modules: tuple[TaskModule, ...]) -> TfidfClassifier:
    """A classifier of these modules, trained in this process."""
    return TfidfClassifier(train_classifier(modules))
