"""What the demo base reads before any module is trained: the language and the numbers of all three areas.

The base must know what its prompts say, because a module sees them only through the base's keys and values. So the
mixture has the questions of the tasks (never a test item), each followed by another reply than the task wants: plain
words. How to answer is what modules learn. Beside them: arithmetic with working, code under comments, facts to look up,
and small talk.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from psserve.training.conversation import Conversation
from psserve.training.tasks import code, math, tools
from psserve.training.tasks.agents import fact, with_system_prompt
from psserve.training.tasks.items import MakeItem, split_of
from psserve.training.tasks.tokenizer import render
from psserve.training.tasks.words import PEOPLE


def corpus(seed: int) -> Iterator[str]:
    """Endless texts, special tokens included (none are to be added). The same seed gives the same texts."""
    rng = random.Random(f"corpus {seed}")
    while True:
        [make] = rng.choices(list(MIXTURE), list(MIXTURE.values()))
        yield make(rng)


def arithmetic(rng: random.Random) -> str:
    """Sums, differences, products and quotients, one a line."""
    working = math.Working()
    for _ in range(rng.randint(3, 10)):
        value = rng.randint(2, math.LARGEST)
        working.step(value, *math.possible_change(rng, value))
    return "\n".join(working.lines)


def running_total(rng: random.Random) -> str:
    """A number that changes step by step: each line goes on from the result of the line before."""
    first = value = rng.randint(2, 60)
    working = math.Working()
    for _ in range(rng.randint(2, 5)):
        value = working.step(value, *math.possible_change(rng, value))
    return "\n".join([f"Start with {first}.", *working.lines])


def retold_problem(rng: random.Random) -> str:
    """A word problem, and what comes out at each step in words."""
    item = training_item(rng, math.item)
    results = [line.split(" = ")[1] for line in text_of(item).splitlines()[:-1]]
    return reply(rng, item, f"First it makes {', then '.join(results)}. So the result is {results[-1]}.")


def described_code(rng: random.Random) -> str:
    """A request for a function, and which names it has."""
    item = training_item(rng, code.item)
    name, _, argument = text_of(item).partition(":")[0].removeprefix("def ").removesuffix(")").partition("(")
    return reply(rng, item, f"The function is called {name} and its argument is {argument}.")


def commented_code(rng: random.Random) -> str:
    """A function under a comment that says what it does."""
    item = training_item(rng, code.item)
    return f"# {item.messages[0]['content']}\n{text_of(item)}"


def told_call(rng: random.Random) -> str:
    """A request with tools, and in words which of them is right."""
    item = training_item(rng, tools.item)
    function = item.messages[-1]["tool_calls"][0]["function"]
    given = " and ".join(f"{value} as {name}" for name, value in function["arguments"].items())
    return reply(rng, item, f"I would use {function['name']} with {given}.")


def facts(rng: random.Random) -> str:
    """Some facts, and a conversation about them."""
    told = [fact(rng) for _ in range(rng.randint(2, 5))]
    messages: list[dict[str, Any]] = []
    for _, question, answer in rng.sample(told, rng.randint(1, 2)):
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    messages[0]["content"] = " ".join([*(sentence for sentence, _, _ in told), messages[0]["content"]])
    return render(with_system_prompt(rng, Conversation(tuple(messages))))


def small_talk(rng: random.Random) -> str:
    """A greeting and thanks."""
    name = rng.choice(PEOPLE)
    turns = [(f"Hello, I am {name}.", f"Hello {name}, how can I help you?"), ("Thank you.", "You are welcome.")]
    chosen = turns if rng.random() < 0.5 else [rng.choice(turns)]
    messages = [
        message
        for question, answer in chosen
        for message in ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
    ]
    return render(with_system_prompt(rng, Conversation(tuple(messages))))


MIXTURE: dict[Callable[[random.Random], str], float] = {
    arithmetic: 4,
    running_total: 2,
    retold_problem: 8,
    described_code: 3,
    commented_code: 4,
    told_call: 5,
    facts: 3,
    small_talk: 0.5,
}
"""What makes a text, and how often relative to the others."""


def training_item(rng: random.Random, make: MakeItem) -> Conversation:
    """An item that is no test item."""
    while split_of(item := make(rng)) == "test":
        pass
    return item


def text_of(item: Conversation) -> str:
    """The text of the reference answer."""
    return str(item.messages[-1]["content"])


def reply(rng: random.Random, item: Conversation, text: str) -> str:
    """The item's prompt with this answer, as text."""
    answer = {"role": "assistant", "content": text}
    return render(with_system_prompt(rng, replace(item, messages=(*item.prompt, answer))))
