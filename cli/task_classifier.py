"""The name of a task classifier, checked before anything is started with it."""

from __future__ import annotations

NONE = "none"
"""Stands for no classifier: there is no model `auto`."""


def check_classifier(name: str) -> None:
    """Raise UsageError if there is no task classifier of this name, or it cannot be loaded."""
    from psserve.router.task_routing.classifier import find_classifier

    if name != NONE:
        find_classifier(name)
