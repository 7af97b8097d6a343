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


@cache
def trained(modules: tuple[TaskModule, ...]) -> TfidfClassifier:
    """A classifier of these modules, trained in this process."""
    return TfidfClassifier(train_classifier(modules))
