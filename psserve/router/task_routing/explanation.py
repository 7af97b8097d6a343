"""A decision explained without a fleet: what `psserve route` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psserve.errors import UsageError
from psserve.router.task_routing.choice import ModuleChoice, choose_module
from psserve.router.task_routing.classifier import (
    Decision,
    Evidence,
    Explains,
    TaskModule,
    TaskRequest,
    find_classifier,
)


@dataclass(frozen=True)
class Rules:
    """What turns scores into a choice, as the router's configuration has it."""

    classifier: str
    threshold: float
    default_module: str | None


@dataclass(frozen=True)
class Explanation:
    """What the router would do with a request of no session, and why."""

    request: TaskRequest
    rules: Rules
    decision: Decision
    choice: ModuleChoice | None
    """None: the request would be refused."""
    evidence: tuple[Evidence, ...]
    """What spoke for and against the likeliest module; empty if the classifier does not explain itself."""

    @property
    def none(self) -> float:
        """How likely the request is nobody's task."""
        return max(0.0, 1 - sum(self.decision.scores.values()))

    def sentence(self) -> str:
        """What would happen."""
        module, confidence, threshold = self.decision.module, self.decision.confidence, self.rules.threshold
        if self.choice is None:
            return f"refused (400 task_unclear): no module reaches the threshold {threshold:g}, and there is no default"
        if self.choice.outcome == "default":
            return f"{self.choice.module} answers: it is the default, and no module reaches the threshold {threshold:g}"
        return f"{module} answers: its score {confidence:.3f} reaches the threshold {threshold:g}"

    def as_json(self) -> dict[str, Any]:
        return {
            "text": self.request.text,
            "tools": self.request.has_tools,
            **asdict(self.rules),
            "scores": dict(self.decision.scores),
            "none": self.none,
            "module": self.choice.module if self.choice else None,
            "confidence": self.choice.confidence if self.choice else self.decision.confidence,
            "outcome": self.choice.outcome if self.choice else "unclear",
            "evidence": [asdict(one) for one in self.evidence],
        }


async def explain(
    modules: Sequence[TaskModule], request: TaskRequest, rules: Rules, evidence_count: int
) -> Explanation:
    """Make the classifier, classify the request, and explain.

    Raises UsageError: there is no such classifier, or it needs a running fleet.
    """
    decision, evidence = Decision({module.name: 1.0 for module in modules}), list[Evidence]()
    if len(modules) > 1:
        classifier = await find_classifier(rules.classifier)(modules, _no_fleet)
        decision = await classifier.classify(request)
        if isinstance(classifier, Explains) and decision.module is not None:
            evidence = classifier.explain(request, decision.module, evidence_count)
    choice = choose_module(decision, rules.threshold, own=None, default=rules.default_module)
    return Explanation(request, rules, decision, choice, tuple(evidence))


async def _no_fleet(body: dict[str, Any]) -> dict[str, Any]:
    raise UsageError("this classifier asks the base model of a running fleet: send it the request with model `auto`")
