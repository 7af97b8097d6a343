"""From a classifier's decision to the module that answers, or to the refusal of a request that fits none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from psserve.errors import RequestError
from psserve.router.task_routing.classifier import Decision
from psserve.router.task_routing.sessions import stays

Outcome = Literal["clear", "kept", "default"]
"""clear: the classifier was sure; kept: the session's module; default: it was not sure."""


@dataclass(frozen=True)
class Choice:
    """The module that answers a request for `auto`."""

    module: str
    confidence: float
    """The classifier's score of this very module."""
    outcome: Outcome

    def note(self) -> dict[str, Any]:
        """What `usage` tells of it."""
        return {"module": self.module, "confidence": round(self.confidence, 4)}


def choose_module(decision: Decision, threshold: float, own: str | None, default: str | None) -> Choice | None:
    """Who answers, `own` being the session's module; None if the request is nobody's task and there is no default."""
    if own is not None and stays(own, decision, threshold):
        return Choice(own, decision.scores.get(own, 0.0), "kept")
    if decision.module is not None and decision.confidence >= threshold:
        return Choice(decision.module, decision.confidence, "clear")
    if default is not None:
        return Choice(default, decision.scores.get(default, 0.0), "default")
    return None


def task_unclear(modules: Iterable[str]) -> RequestError:
    """The 400 for a request that fits none of `modules`."""
    message = f"it is not clear which module this request is for: set model to one of {', '.join(modules)}"
    return RequestError(400, message, param="model", code="task_unclear")
