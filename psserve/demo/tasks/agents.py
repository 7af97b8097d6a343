"""What agents who share a context begin with: a system prompt, and facts that they are told."""

from __future__ import annotations

import random
from dataclasses import replace

from psserve.demo.tasks.words import CITIES, COLOURS, DAYS, PEOPLE, ROOMS, THINGS
from psserve.training.conversation import Conversation

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are one of several agents who work on the same task. Read all that was said, then answer the last message.",
    "Answer the question. Be brief and exact.",
)

SYSTEM_SHARE = 0.3
"""Share of conversations, in training and in the corpus, that begin with a system prompt."""


def with_system_prompt(rng: random.Random, conversation: Conversation) -> Conversation:
    """The conversation, begun with one of the system prompts or with none."""
    if rng.random() >= SYSTEM_SHARE:
        return conversation
    system = {"role": "system", "content": rng.choice(SYSTEM_PROMPTS)}
    return replace(conversation, messages=(system, *conversation.messages))


def fact(rng: random.Random) -> tuple[str, str, str]:
    """A sentence, a question about it, and the answer."""
    name, things, number = rng.choice(PEOPLE), rng.choice(THINGS), str(rng.randint(2, 99))
    place, day, room, colour = rng.choice(CITIES), rng.choice(DAYS), rng.choice(ROOMS), rng.choice(COLOURS)
    facts = (
        (f"{name} lives in {place}.", f"Where does {name} live?", f"In {place}."),
        (f"{name} has {number} {things}.", f"How many {things} does {name} have?", f"{number} {things}."),
        (f"{name} comes on {day}.", f"When does {name} come?", f"On {day}."),
        (f"The {room} of {name} is {colour}.", f"Which colour is the {room} of {name}?", f"It is {colour}."),
        (f"The {things} of {name} are in the {room}.", f"Where are the {things} of {name}?", f"In the {room}."),
    )
    return rng.choice(facts)
