"""`code`: a short Python function from its description, checked by running unit tests."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

from psserve.demo.tasks.items import ask
from psserve.demo.tasks.words import ARGUMENTS, NOUNS, VERBS
from psserve.training.conversation import Conversation

NUMBERS = range(31)
"""What functions of a number are tested with; lists are made of the same."""
ELEMENT = "e"
"""The loop variable, which is no argument's name."""

# (in words, as an expression of the element e or the argument, {n} being a number)
CONDITIONS = (
    ("greater than {n}", "{e} > {n}"),
    ("less than {n}", "{e} < {n}"),
    ("at least {n}", "{e} >= {n}"),
    ("at most {n}", "{e} <= {n}"),
    ("not equal to {n}", "{e} != {n}"),
    ("even", "{e} % 2 == 0"),
    ("odd", "{e} % 2 == 1"),
    ("divisible by {n}", "{e} % {n} == 0"),
)
CHANGES = (
    ("plus {n}", "{e} + {n}"),
    ("minus {n}", "{e} - {n}"),
    ("times {n}", "{e} * {n}"),
    ("squared", "{e} * {e}"),
    ("modulo {n}", "{e} % {n}"),
)
REDUCTIONS = (
    ("the sum", "sum({})"),
    ("the list", "list({})"),
    ("the sorted list", "sorted({})"),
    ("the largest, or 0 if there is none,", "max(({}), default=0)"),
    ("the smallest, or 0 if there is none,", "min(({}), default=0)"),
)
TEXTS = (
    ("in upper case", "{a}.upper()"),
    ("in lower case", "{a}.lower()"),
    ("reversed", "{a}[::-1]"),
    ("without its last {n} characters", "{a}[:-{n}]"),
    ("repeated {n} times", "{a} * {n}"),
    ("with every '{l}' replaced by '{m}'", "{a}.replace('{l}', '{m}')"),
    ("with '{l}' added at the end", "{a} + '{l}'"),
    ("with '{l}' added in front", "'{l}' + {a}"),
)
LETTERS = "abcdefghiklmnoprstu"
ALPHABETS = [LETTERS, LETTERS.upper(), LETTERS.swapcase() + "aBc"]
"""Functions of a text are tested with these too: a letter replaced wrongly shows in one of them."""


def item(rng: random.Random) -> Conversation:
    """One description, the function, and its unit tests."""
    name = f"{rng.choice(VERBS)}_{rng.choice(NOUNS)}"
    argument = rng.choice(ARGUMENTS)
    task, body, inputs = rng.choice((on_list, on_number, on_text))(rng, argument)
    opening = rng.choice(
        (
            "Write a Python function {name}({argument}) that returns {task}.",
            "Define {name}({argument}). It returns {task}.",
            "I need a function called {name} with the argument {argument}. It should return {task}.",
        )
    )
    question = opening.format(name=name, argument=argument, task=task)
    source = f"def {name}({argument}):\n{body}"
    return ask(question, source, tests=unit_tests(name, source, inputs))


def solution(answer: Mapping[str, Any]) -> str:
    """What the function of an answer does, whatever it and its argument are called."""
    head, _, lines = str(answer["content"]).partition("\n")
    argument = head.partition("(")[2].removesuffix("):")
    return re.sub(rf"(?<!')\b{argument}\b", "argument", lines)  # not the letter 'a' of an argument a


def unit_tests(name: str, source: str, inputs: list[Any]) -> str:
    """An assertion that the function of this source passes."""
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    expected = [namespace[name](value) for value in inputs]
    return f"assert [{name}(value) for value in {inputs}] == {expected}"


Part = tuple[str, str, list[Any]]
"""What the function returns in words, its body, and the inputs that it is tested with."""


def on_list(rng: random.Random, argument: str) -> Part:
    """A list's elements are filtered, changed and brought together."""
    condition, test = numbered(rng, CONDITIONS, ELEMENT)
    change, value = numbered(rng, CHANGES, ELEMENT) if rng.random() < 0.6 else ("", ELEMENT)
    reduction, collect = rng.choice(REDUCTIONS)
    whole = collect.format(f"{value} for {ELEMENT} in {argument} if {test}")
    changed = f", each {change}" if change else ""
    task = f"{reduction} of the numbers in {argument} that are {condition}{changed}"
    lists: list[Any] = [rng.sample(NUMBERS, k=size) for size in (len(NUMBERS), 0, 1, 5, 8)]
    return task, f"    return {whole}", lists + [[number] for number in NUMBERS]


def on_number(rng: random.Random, argument: str) -> Part:
    """One thing if the number fulfils a condition, another otherwise."""
    condition, test = numbered(rng, CONDITIONS, argument)
    (yes, if_yes), (no, if_no) = (numbered(rng, CHANGES, argument) for _ in range(2))
    task = f"{argument} {yes} if {argument} is {condition}, and {argument} {no} otherwise"
    body = f"    if {test}:\n        return {if_yes}\n    return {if_no}"
    return task, body, list(NUMBERS)


def on_text(rng: random.Random, argument: str) -> Part:
    """A string, changed once or twice."""
    first, second = rng.sample(TEXTS, 2)
    words, expression = filled(rng, first, argument)
    inputs: list[Any] = [random_text(rng) for _ in range(6)] + ALPHABETS
    if rng.random() < 0.4:
        return f"the string {argument} {words}", f"    return {expression}", inputs
    then, after = filled(rng, second, argument)
    body = f"    {argument} = {expression}\n    return {after}"
    return f"the string {argument} {words}, and then {then}", body, inputs


def filled(rng: random.Random, pair: tuple[str, str], argument: str) -> tuple[str, str]:
    """Words and expression of a change of text, with the same number and letters in both."""
    first, second = rng.sample(LETTERS, 2)
    values = {"n": rng.randint(2, 5), "l": first, "m": second, "a": argument}
    return pair[0].format(**values), pair[1].format(**values)


def numbered(rng: random.Random, pairs: tuple[tuple[str, str], ...], element: str) -> tuple[str, str]:
    """Words and expression of a condition or change, with the same number in both."""
    words, expression = rng.choice(pairs)
    number = rng.randint(2, 12)
    return words.format(n=number), expression.format(n=number, e=element)


def random_text(rng: random.Random) -> str:
    """A word of some letters, large and small."""
    return "".join(rng.choice((letter, letter.upper())) for letter in rng.choices(LETTERS, k=rng.randint(6, 9)))
