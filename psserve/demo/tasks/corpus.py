"""What the demo base reads before any module is trained: the language and the numbers of all three areas.

The base must know what its prompts say, because a module sees them only through the base's keys and values. So the
mixture has the questions of the tasks (never a test item), each followed by another reply than the task wants: plain
words. How to answer is what modules learn. Beside them: arithmetic with working, code under comments, facts to look up,
made-up words to copy and to find, and small talk.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from psserve.demo.tasks import code, math, tools
from psserve.demo.tasks.agents import fact, with_system_prompt
from psserve.demo.tasks.items import MakeItem, split_of
from psserve.demo.tasks.tokenizer import render_text
from psserve.demo.tasks.tools import KINDS
from psserve.demo.tasks.words import ALL_WORDS, PEOPLE
from psserve.training.conversation import Conversation

TOOL_NAMES = {name for kind in KINDS for names in (kind.names, *(slot.names for slot in kind.slots)) for name in names}
WORDS = sorted({*ALL_WORDS, *TOOL_NAMES})
"""All that the tasks have names for."""


def corpus(seed: int) -> Iterator[str]:
    """Endless texts, special tokens included (none are to be added). The same seed gives the same texts."""
    return mixed(random.Random(f"corpus {seed}"), MIXTURE)


def reading(seed: int) -> Iterator[str]:
    """The same texts in other shares: mostly questions of the tasks, told again."""
    return mixed(random.Random(f"reading {seed}"), READING)


def mixed(rng: random.Random, mixture: Mixture) -> Iterator[str]:
    """Endless texts of all kinds."""
    while True:
        [make] = rng.choices(list(mixture), list(mixture.values()))
        yield make(rng)


def repetitions(seed: int) -> Iterator[str]:
    """Endless short lists of words, each list twice: nothing can be learnt from them but to copy."""
    rng = random.Random(f"copying {seed}")
    while True:
        words = " ".join(rng.sample(WORDS, rng.randint(3, 9)))
        yield f"{words}\n{words}\n"


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
    """A word problem, and how it is solved, in words."""
    item = training_item(rng, math.wide_item)
    steps = [line.split() for line in answer_text(item).splitlines()[:-1]]
    told = [f"{left} {SIGNS[sign]} {right} makes {result}." for left, sign, right, _, result in steps]
    return reply(rng, item, " ".join([*told, f"So the result is {steps[-1][-1]}."]))


SIGNS = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}


def described_code(rng: random.Random) -> str:
    """A request for a function, and which names it has."""
    item = training_item(rng, code.item)
    name, _, argument = answer_text(item).partition(":")[0].removeprefix("def ").removesuffix(")").partition("(")
    return reply(rng, item, f"The function is called {name} and its argument is {argument}.")


def commented_code(rng: random.Random) -> str:
    """A function under a comment that says what it does."""
    item = training_item(rng, code.item)
    return f"# {item.messages[0]['content']}\n{answer_text(item)}"


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
    return render_text(with_system_prompt(rng, Conversation(tuple(messages))))


def echo(rng: random.Random) -> str:
    """Words, and all of them again, once or twice."""
    words = some_words(rng, rng.randint(3, 12))
    return "\n".join([" ".join(words)] * rng.randint(2, 3))


def look_up(rng: random.Random) -> str:
    """Words with a word or number each, and the same pairs in another order."""
    count = rng.randint(3, 8)
    words = some_words(rng, 2 * count)
    values = [word if rng.random() < 0.5 else str(rng.randint(0, 999)) for word in words[count:]]
    pairs = list(zip(words[:count], values, strict=True))
    told = [f"{key} is {value}." for key, value in pairs]
    asked = [f"What is {key}? {value}" for key, value in rng.sample(pairs, count)]
    return "\n".join([" ".join(told), *asked])


def some_words(rng: random.Random, count: int) -> list[str]:
    """Different words: mostly those of the tasks, now and then made-up ones."""
    if rng.random() < 0.7:
        return rng.sample(WORDS, count)
    return list(islice(dict.fromkeys(made_up_word(rng) for _ in range(10 * count)), count))


def made_up_word(rng: random.Random) -> str:
    """One to three syllables that mean nothing."""
    return "".join(rng.choice(letters) for letters in ("bdfgklmnprstvz", "aeiou") * rng.randint(1, 3))


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
    return render_text(with_system_prompt(rng, Conversation(tuple(messages))))


Mixture = Mapping[Callable[[random.Random], str], float]
"""What makes a text, and how often relative to the others."""

MIXTURE: Mixture = {
    arithmetic: 3,
    running_total: 2,
    retold_problem: 10,
    described_code: 3,
    commented_code: 5,
    told_call: 4,
    facts: 3,
    echo: 4,
    look_up: 4,
    small_talk: 0.5,
}
READING: Mixture = {
    arithmetic: 4,
    running_total: 3,
    retold_problem: 14,
    described_code: 1.5,
    commented_code: 2,
    told_call: 10,
    facts: 1,
    echo: 2,
    look_up: 2,
    small_talk: 0.5,
}


def training_item(rng: random.Random, make: MakeItem) -> Conversation:
    """An item that is no test item."""
    while split_of(item := make(rng)) == "test":
        pass
    return item


def answer_text(item: Conversation) -> str:
    """The text of the reference answer."""
    return str(item.messages[-1]["content"])


def reply(rng: random.Random, item: Conversation, text: str) -> str:
    """The item's prompt with this answer, as text."""
    answer = {"role": "assistant", "content": text}
    return render_text(with_system_prompt(rng, replace(item, messages=(*item.prompt, answer))))
