"""`math`: word problems of two to four steps; the answer shows its working and ends with `#### N`.

The task's problems are plain: what somebody has is told in the order in which it is needed. In wide ones, which only
the base reads, two people may have things at once, and not all of these problems say whose they mean.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import pairwise

from psserve.demo.tasks.items import ask
from psserve.demo.tasks.words import COLOURS, PEOPLE, THINGS
from psserve.training.conversation import Conversation

LARGEST = 99
"""No result is larger, and no number on the way to it but some sums of prices."""


@dataclass
class Working:
    """The lines of an answer's working, as they are computed."""

    lines: list[str] = field(default_factory=list)
    value: int = 0

    def step(self, left: int, sign: str, right: int) -> int:
        """Write down `left sign right = value`, and return the value."""
        self.value = {"+": left + right, "-": left - right, "*": left * right, "/": left // right}[sign]
        self.lines.append(f"{left} {sign} {right} = {self.value}")
        return self.value

    def answer(self) -> str:
        """The working and the result, one line each."""
        return "\n".join([*self.lines, f"#### {self.value}"])


def item(rng: random.Random) -> Conversation:
    """One plain problem and its answer."""
    question, working = problem(rng, wide=False)
    return ask(question, working.answer())


def wide_item(rng: random.Random) -> Conversation:
    """One problem, plain or not, and its answer."""
    question, working = problem(rng, wide=True)
    return ask(question, working.answer())


def problem(rng: random.Random, wide: bool) -> tuple[str, Working]:
    """The text of one problem, and its working."""
    while True:
        question, working = rng.choice((changes, comparison, purchase))(rng, wide)
        if 2 <= len(working.lines) <= 4 and 0 <= working.value <= LARGEST:
            return question, working


def changes(rng: random.Random, wide: bool) -> tuple[str, Working]:
    """Someone's things become more and fewer. In wide problems another person gives some, or has some too."""
    name, other = rng.sample(PEOPLE, 2)
    things = rng.choice(THINGS)
    working = Working()
    value = rng.randint(2, 30)
    told = [f"{name} has {value} {things}."]
    if wide and rng.random() < 0.3:
        told.insert(rng.randint(0, 1), f"{other} has {rng.randint(2, 30)} {things}.")
    sentences = CHANGES | WIDE_CHANGES if wide else CHANGES
    for _ in range(rng.randint(2, 4)):
        sign, amount = possible_change(rng, value)
        told.append(rng.choice(sentences[sign]).format(name=name, n=amount, other=other, things=things))
        value = working.step(value, sign, amount)
    ending = rng.choice(("How many {things} does {name} have now?", "How many {things} are left with {name}?"))
    return " ".join([*told, ending.format(name=name, things=things)]), working


CHANGES = {
    "+": ("{name} buys {n} more.", "{name} finds {n} {things}."),
    "-": ("{name} loses {n} of them.", "{name} gives {n} {things} to {other}.", "{name} sells {n} {things}."),
    "*": ("Then {name} gets {n} times as many.", "Magic makes them {n} times as many."),
    "/": ("{name} shares them equally among {n} people and keeps one part.", "Only one in {n} is kept."),
}
WIDE_CHANGES = {"+": (*CHANGES["+"], "{other} gives {n} {things} to {name}.")}


def possible_change(rng: random.Random, value: int) -> tuple[str, int]:
    """A change that keeps `value` a whole number from 1 to `LARGEST`."""
    possible = [("+", n) for n in range(2, 21) if value + n <= LARGEST]
    possible += [("-", n) for n in range(2, 21) if n < value]
    factors = [("*", n) for n in (2, 3, 4) if value * n <= LARGEST]
    factors += [("/", n) for n in (2, 3, 4) if value % n == 0 and value > n]
    return rng.choice(factors if factors and rng.random() < 0.3 else possible)


def comparison(rng: random.Random, wide: bool) -> tuple[str, Working]:
    """Each person's number is told by that of the person before; asked for is the last one's, or two together.

    The two are the first and the last, in wide problems any and the last.
    """
    names = rng.sample(PEOPLE, rng.randint(2, 4))
    things = rng.choice(THINGS)
    working = Working()
    numbers = [rng.randint(2, 30)]
    told = [f"{names[0]} has {numbers[0]} {things}."]
    for before, name in pairwise(names):
        sign, amount = possible_change(rng, numbers[-1])
        told.append(COMPARISONS[sign].format(name=name, n=amount, things=things, before=before))
        numbers.append(working.step(numbers[-1], sign, amount))
    if len(names) == 4 or (len(names) > 2 and rng.random() < 0.4):
        return " ".join([*told, f"How many {things} does {names[-1]} have?"]), working
    first = rng.randrange(len(names) - 1) if wide else 0
    working.step(numbers[first], "+", numbers[-1])
    return " ".join([*told, f"How many {things} do {names[first]} and {names[-1]} have together?"]), working


COMPARISONS = {
    "+": "{name} has {n} more {things} than {before}.",
    "-": "{name} has {n} fewer {things} than {before}.",
    "*": "{name} has {n} times as many {things} as {before}.",
    "/": "{before} has {n} times as many {things} as {name}.",
}


def purchase(rng: random.Random, _wide: bool) -> tuple[str, Working]:
    """Prices and counts, not all of which matter; asked for is the sum to pay, or the change."""
    name, (first, second), colour = rng.choice(PEOPLE), rng.sample(THINGS, 2), rng.choice(COLOURS)
    prices, counts = rng.choices(range(2, 10), k=2), rng.choices(range(2, 7), k=2)
    told = [f"In the {colour} shop {first} cost {prices[0]} dollars each and {second} cost {prices[1]} dollars each."]
    working = Working()
    pays = working.step(prices[0], "*", counts[0])
    if rng.random() < 0.6:
        told.append(f"{name} buys {counts[0]} {first} and {counts[1]} {second}.")
        rest = working.step(prices[1], "*", counts[1])
        pays = working.step(pays, "+", rest)
    else:
        told.append(f"{name} buys {counts[0]} {first}.")
    if len(working.lines) == 3 and rng.random() < 0.5:
        return " ".join([*told, f"How many dollars does {name} pay?"]), working
    purse = rng.randint(pays, max(pays, LARGEST))
    working.step(purse, "-", pays)
    told.insert(0, f"{name} has {purse} dollars.")
    return " ".join([*told, f"How many dollars does {name} have left?"]), working
