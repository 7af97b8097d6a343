"""A classifier that asks the base itself, through the fleet: one short answer that a grammar holds to module names.

The question begins with the same text every time, which therefore stays in the base's KV cache. Needs `--serve-base`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from psserve.errors import RequestError
from psserve.router.task_routing.classifier import AskBase, Decision, TaskModule, TaskRequest

NONE = "NONE"  # no module can be called that: names have small letters
LONGEST_ANSWER = 48  # tokens; enough for a name of 64 characters in any vocabulary we know, and the end token
CLASSIFY_TIMEOUT_S = 10.0
SHOWN_EXAMPLES = 3


class BaseModelClassifier:
    """Asks the base once a request."""

    def __init__(self, modules: Sequence[TaskModule], ask: AskBase) -> None:
        self._ask = ask
        self._names = [module.name for module in modules]
        self._instruction = _instruction(modules)
        self._answer = "|".join((*self._names, NONE)).replace(".", r"\.")

    async def classify(self, request: TaskRequest) -> Decision:
        """The score is the probability that the base gives to its answer, among the answers allowed.

        Raises RequestError: the base could not be asked, or took longer than CLASSIFY_TIMEOUT_S.
        """
        try:
            async with asyncio.timeout(CLASSIFY_TIMEOUT_S):
                answer = await self._ask(self._question(request))
        except TimeoutError:
            message = "the base model did not classify the request in time; name a module, or retry"
            raise RequestError(504, message, type="server_error", code="timeout") from None
        choice = answer["choices"][0]
        name = (choice["message"]["content"] or "").strip()
        if name not in self._names:
            return Decision({})
        tokens = (choice.get("logprobs") or {}).get("content") or []
        return Decision({name: min(1.0, math.exp(sum(token["logprob"] for token in tokens)))})

    def _question(self, request: TaskRequest) -> dict[str, Any]:
        tools = "\n(The request offers tools to call.)" if request.has_tools else ""
        return {
            "messages": [
                {"role": "system", "content": self._instruction},
                {"role": "user", "content": f"Request:\n{request.text}{tools}\n\nSpecialist:"},
            ],
            "regex": f"({self._answer})",
            "max_tokens": LONGEST_ANSWER,
            "temperature": 0,
            "logprobs": True,
            "chat_template_kwargs": {"enable_thinking": False},
        }


def _instruction(modules: Sequence[TaskModule]) -> str:
    lines = ["Each request goes to one of these specialists:"]
    for module in modules:
        lines.append(f"- {module.name}: {module.task or 'see the name'}")
        lines += [f"  for example: {' '.join(example.split())}" for example in module.examples[:SHOWN_EXAMPLES]]
    lines.append(f"Answer with the specialist's name alone, or with: {NONE}")
    return "\n".join(lines)


async def make(modules: Sequence[TaskModule], ask: AskBase) -> BaseModelClassifier:
    """Nothing needs training."""
    return BaseModelClassifier(modules, ask)
