"""Finding a classifier by its name: one of ours, or an entry point of another package."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from psserve.errors import UsageError
from psserve.router.task_routing.classifier import MakeClassifier

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
