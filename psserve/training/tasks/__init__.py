"""Demo tasks: seeded generators of training and test items, and the corpus that the demo base reads first."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import islice

from psserve.training.conversation import Conversation
from psserve.training.tasks import code, math, tools
from psserve.training.tasks.agents import with_system_prompt
from psserve.training.tasks.items import MakeItem, generate

__all__ = ["TASKS", "Task", "example_requests", "held_out_items", "training_items"]


@dataclass(frozen=True)
class Task:
    """A demo task: how its items are made, the scorer that judges answers, and what a zoo says about its module."""

    name: str
    make: MakeItem
    scorer: str
    description: str
    longest_answer: int
    """In tokens of the demo tokenizer, with room to spare."""


TASKS = {
    task.name: task
    for task in (
        Task("math", math.item, "number", "word problems with numbers: how many, how much, how many are left", 64),
        Task("code", code.item, "python", "write a short Python function from a description", 80),
        Task("tools", tools.item, "tool-call", "call the right tool, with the arguments that the request names", 64),
    )
}
"""The three tasks by name, which is their module's name too."""

JOINED_SHARE = 0.2
"""Share of training conversations that are two items in a row."""


def held_out_items(task: str, count: int, seed: int = 0) -> list[Conversation]:
    """Held-out items, all different."""
    return list(islice(generate(TASKS[task].make, "test", seed), count))


def example_requests(task: str) -> tuple[str, ...]:
    """Requests for a module's manifest: enough that every kind the task has is among them."""
    return tuple(str(item.messages[0]["content"]) for item in held_out_items(task, 8, seed=1))


def training_items(task: str, count: int, seed: int = 0) -> list[Conversation]:
    """Training conversations: some with a system prompt, some of two turns. Every question in them is different."""
    rng = random.Random(f"training {task} {seed}")
    items = generate(TASKS[task].make, "train", seed)
    conversations = []
    for _ in range(count):
        conversation = next(items)
        if not conversation.tools and rng.random() < JOINED_SHARE:
            conversation = Conversation((*conversation.messages, *next(items).messages))
        conversations.append(with_system_prompt(rng, conversation))
    return conversations
