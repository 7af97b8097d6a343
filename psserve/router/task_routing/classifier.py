"""What a task classifier is: it reads a request and says which module's task it is, and how sure that is.

psserve has two (tfidf.py, base_model.py). Others come as entry points of the group `psserve.task_classifiers`: the name
is what `--task-classifier` takes, the object a `MakeClassifier`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, cast, runtime_checkable

from psserve.errors import UsageError

GROUP = "psserve.task_classifiers"
BUILT_IN = {
    "tfidf": "psserve.router.task_routing.tfidf",
    "base-model": "psserve.router.task_routing.base_model",
}
"""Name -> the module whose `make` makes it."""


def classifier_names() -> list[str]:
    """Every name that `find_classifier` knows."""
    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))})


def find_classifier(name: str) -> MakeClassifier:
    """What makes classifiers of this name. Ours cannot be replaced by another package's of the same name.

    Raises UsageError: there is none, or its package cannot be imported.
    """
    if name in BUILT_IN:
        return cast(MakeClassifier, import_module(BUILT_IN[name]).make)
    for point in entry_points(group=GROUP, name=name):
        return _loaded(point)
    raise UsageError(f"no task classifier {name!r}: installed are {', '.join(classifier_names())}")


def _loaded(point: EntryPoint) -> MakeClassifier:
    try:
        return cast(MakeClassifier, point.load())
    except (ImportError, AttributeError) as error:
        raise UsageError(f"task classifier {point.name!r} ({point.value}) cannot be loaded: {error}") from error


@dataclass(frozen=True)
class TaskModule:
    """A module as far as its manifest tells what it is for."""

    name: str
    aliases: tuple[str, ...] = ()
    task: str = ""
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskRequest:
    """A request as far as it tells what it asks for."""

    text: str
    has_tools: bool = False
    """The request offers tools that the answer may call."""


@dataclass(frozen=True)
class Decision:
    """What a classifier found."""

    scores: Mapping[str, float]
    """Module -> how likely the request is its task, from 0 to 1. What is left to 1 means: none of them."""

    @property
    def module(self) -> str | None:
        """The likeliest module; of equals the first by name. None if no module was scored."""
        return min(self.scores, key=lambda name: (-self.scores[name], name), default=None)

    @property
    def confidence(self) -> float:
        """The likeliest module's score."""
        return max(self.scores.values(), default=0.0)


class TaskClassifier(Protocol):
    """Knows the modules it was made for. Used by one event loop: what takes longer than a millisecond must await."""

    async def classify(self, request: TaskRequest) -> Decision: ...


AskBase = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Sends a chat completion's body to the base model through the fleet; returns the answer. Raises RequestError."""
MakeClassifier = Callable[[Sequence[TaskModule], AskBase], Awaitable[TaskClassifier]]
"""Makes a classifier for two or more modules. It is awaited on the event loop: heavy work belongs elsewhere."""


@dataclass(frozen=True)
class Evidence:
    """A feature of a request that spoke for a module (weight above 0) or against it, in units of log-odds."""

    feature: str
    weight: float


@runtime_checkable
class Explains(Protocol):
    """A classifier that can say why."""

    def explain(self, request: TaskRequest, module: str, count: int) -> list[Evidence]:
        """The `count` features that weighed most for and against `module`, heaviest first."""
        ...
