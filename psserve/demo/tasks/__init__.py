"""Demo tasks: seeded generators of training and test items, and the corpus that the demo base reads first."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from psserve.demo.tasks import code, math, tools
from psserve.demo.tasks.agents import with_system_prompt
from psserve.demo.tasks.examples import EVERYDAY_EXAMPLES
from psserve.demo.tasks.items import MakeItem, endless_items, kept_for_tests
from psserve.training.conversation import Conversation
from psserve.training.scorers import message_text

__all__ = ["TASKS", "Task", "conversations", "example_requests", "held_out_items", "training_items"]


@dataclass(frozen=True)
class Task:
    """A demo task: how its items are made, the scorer that judges answers, and what a zoo says about its module."""

    name: str
    make: MakeItem
    scorer: str
    description: str
    longest_answer: int
    """In tokens of the demo tokenizer, with room to spare."""
    solution: Callable[[Mapping[str, Any]], str] = message_text
    """Of an answer: what may not be in both training and test data."""


TASKS = {
    task.name: task
    for task in (
        Task("math", math.item, "number", "word problems with numbers: how many, how much, how many are left", 64),
        Task("code", code.item, "python", "write a short Python function from a description", 80, code.solution),
        Task("tools", tools.item, "tool-call", "call the right tool, with the arguments that the request names", 64),
    )
}
"""The three tasks by name, which is their module's name too."""

JOINED_SHARE = 0.2
"""Share of training conversations that are two items in a row."""


def held_out_items(task: str, count: int, seed: int = 0) -> list[Conversation]:
    """Held-out items, all different, with solutions that no training item has."""
    items = endless_items(TASKS[task].make, "test", seed)
    return list(islice((item for item in items if kept_for_tests(TASKS[task].solution(item.messages[-1]))), count))


def example_requests(task: str) -> tuple[str, ...]:
    """Requests for a module's manifest: some generated, and enough of people's own that they are of every kind."""
    generated = (str(item.messages[0]["content"]) for item in held_out_items(task, 8, seed=1))
    return (*generated, *EVERYDAY_EXAMPLES[task])


def training_items(task: str, count: int, seed: int = 0) -> list[Conversation]:
    """Training conversations without the solutions that are kept for tests."""

    def allowed(conversation: Conversation) -> bool:
        answers = (message for message in conversation.messages if message["role"] == "assistant")
        return not any(kept_for_tests(TASKS[task].solution(answer)) for answer in answers)

    return list(islice(filter(allowed, conversations(task, seed)), count))


def conversations(task: str, seed: int = 0) -> Iterator[Conversation]:
    """Endless conversations: some with a system prompt, some of two turns. Every question in them is different."""
    rng = random.Random(f"training {task} {seed}")
    items = endless_items(TASKS[task].make, "train", seed)
    for conversation in items:
        if not conversation.tools and rng.random() < JOINED_SHARE:
            conversation = Conversation((*conversation.messages, *next(items).messages))
        yield with_system_prompt(rng, conversation)
