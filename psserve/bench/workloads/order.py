"""Whose turn it is: the order in which a session calls modules."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, cycle
from typing import Literal

from psserve.errors import UsageError

KINDS = ("round-robin", "random", "zipf")


@dataclass(frozen=True)
class Order:
    """`round-robin`: each in its turn, the sessions beginning with different ones; `random`: all alike; `zipf`: the
    k-th module with weight 1 / k ** exponent; `list`: the given names over and over, each session from the first."""

    kind: Literal["round-robin", "random", "zipf", "list"] = "round-robin"
    exponent: float = 1.0
    names: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Order:
        """`round-robin`, `random`, `zipf`, `zipf:1.2`, or module names with commas between. Raises UsageError."""
        kind, colon, number = text.partition(":")
        if kind == "zipf" and colon:
            try:
                exponent = float(number)
            except ValueError:
                exponent = -1.0
            if not 0 <= exponent <= 10:
                raise UsageError(f"--order {text}: the exponent must be a number from 0 to 10")
            return cls("zipf", exponent)
        if text in KINDS:
            return cls(text)  # type: ignore[arg-type] # it is one of them
        names = tuple(name.strip() for name in text.split(","))
        if not all(names):
            raise UsageError(f"--order {text}: give {', '.join(KINDS)}, or modules, as in math,code,math")
        return cls("list", names=names)

    def check(self, modules: Sequence[str]) -> None:
        """Raises UsageError for a name that is none of the modules."""
        for name in self.names:
            if name not in modules:
                raise UsageError(f"--order names {name}; the modules are: {', '.join(modules)}")

    def turns(self, rng: random.Random, modules: Sequence[str], session: int) -> Iterator[str]:
        """The modules that session number `session` calls, without an end."""
        if self.kind == "list":
            return cycle(self.names)
        if self.kind == "round-robin":
            return (modules[turn % len(modules)] for turn in count(session))
        exponent = self.exponent if self.kind == "zipf" else 0.0
        weights = [1 / rank**exponent for rank in range(1, len(modules) + 1)]
        return (rng.choices(modules, weights)[0] for _ in count())

    def __str__(self) -> str:
        if self.kind == "list":
            return ",".join(self.names)
        return f"zipf:{self.exponent:g}" if self.kind == "zipf" else self.kind
