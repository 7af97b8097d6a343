"""A workload: what is asked, in all its parameters, and the values that each preset has for them.

`Length` is how long something is, `Order` whose turn it is. docs/benchmarks.md says where a preset's values come from.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import count, cycle
from typing import Any, Literal, get_args

from psserve.errors import UsageError

MOST = 10_000_000
_FORM = re.compile(r"(\d+)(?:-(\d+)|~(\d+(?:\.\d+)?))?")


@dataclass(frozen=True)
class Length:
    """From `low` to `high`, all equally likely; or, with a `sigma`, lognormal with the mean `low`."""

    low: float
    high: float
    sigma: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Length:
        """`512`: always; `256-768`: in this range; `512~0.5`: lognormal with this mean and sigma. Raises UsageError."""
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise UsageError(f"length {text!r}: give N, LOW-HIGH, or MEAN~SIGMA, as in 512, 256-768, 512~0.5")
        low = float(match[1])
        made = cls(low, float(match[2] or low), float(match[3] or 0))
        if made.high < made.low or made.high > MOST or made.sigma > 3:
            raise UsageError(f"length {text!r}: the second number must not be below the first, no sigma above 3")
        return made

    def draw(self, rng: random.Random) -> int:
        """One length: at least 1, or always 0."""
        if self.high == 0:
            return 0
        if self.sigma:
            return max(1, round(rng.lognormvariate(math.log(self.low) - self.sigma**2 / 2, self.sigma)))
        return max(1, round(rng.uniform(self.low, self.high)))

    def scaled(self, factor: float) -> Length:
        """The same, `factor` times as long."""
        return Length(self.low * factor, self.high * factor, self.sigma)

    def __str__(self) -> str:
        if self.sigma:
            return f"{self.low:g}~{self.sigma:g}"
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g}-{self.high:g}"


_KINDS = ("round-robin", "random", "zipf")


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
        if text in _KINDS:
            return cls(text)  # type: ignore[arg-type] # it is one of them
        names = tuple(name.strip() for name in text.split(","))
        if not all(names):
            raise UsageError(f"--order {text}: give {', '.join(_KINDS)}, or modules, as in math,code,math")
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


Preset = Literal[
    "four-agents-react", "four-agents-reflexion", "react", "reflexion", "fanout", "chat", "hotpotqa", "icarus"
]
PRESETS: tuple[Preset, ...] = get_args(Preset)
Arrival = Literal["poisson", "constant"]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The same parameters make the same sessions, here and anywhere. Lengths are in tokens."""

    preset: Preset
    modules: tuple[str, ...]
    seed: int = 1
    sessions: int | None = 32
    """None: without an end."""
    order: Order = Order()  # it is frozen
    turns: Length
    """Calls of a session (`four-agents-*`: rounds in which all modules act; `fanout`: rounds of calls; `reflexion`:
    acting calls of a trial; `chat`: messages)."""
    trials: int = 1
    """`reflexion`: attempts, each evaluated; between two of them comes a reflection."""
    system: int
    """The system prompt that sessions share."""
    system_prompts: int = 1
    """So many different ones; each session has one of them."""
    new: Length
    """What joins the context before a call: the task at first, then what a tool returned or a person wrote."""
    output: Length
    """Each answer."""
    instruction: int = 32
    """`reflexion`: what asks for an evaluation or a reflection."""
    verdict: int = 32
    """`reflexion`: the answer of an evaluation."""
    reflection: int = 300
    """`reflexion`: the answer of a reflection."""
    think_s: float = 0.5
    """Mean time between an answer and the next call (exponential): a tool at work, a person thinking."""
    arrival: Arrival | None = None
    """How sessions arrive in an open loop; None in a closed loop."""
    sessions_per_s: float | None = None
    scale: float = 1.0
    """All lengths are multiplied by this, turns and times are not."""

    def __post_init__(self) -> None:
        if not self.modules:
            raise UsageError("a workload needs at least one module")
        if self.preset not in PRESETS:
            raise UsageError(f"workload {self.preset}: there are {', '.join(PRESETS)}")
        if (self.arrival is None) != (self.sessions_per_s is None):
            raise UsageError("an arrival process needs a rate, and a rate an arrival process")
        if self.turns.high < 1 or self.output.high <= 0 or min(self.trials, self.system_prompts) < 1:
            raise UsageError("turns, trials, system prompts and output tokens must be at least 1")
        if self.system < 0 or self.think_s < 0 or not (math.isfinite(self.scale) and self.scale > 0):
            raise UsageError("lengths and times must not be below 0, and the scale must be above 0")
        if self.sessions_per_s is not None and not 0 < self.sessions_per_s < math.inf:
            raise UsageError("the rate of sessions must be above 0")
        self.order.check(self.modules)

    def scaled(self) -> Workload:
        """The same with its lengths multiplied, and no scale left."""

        def times(tokens: int) -> int:
            return max(1, round(tokens * self.scale)) if tokens else 0

        return replace(
            self,
            scale=1.0,
            system=times(self.system),
            new=self.new.scaled(self.scale),
            output=self.output.scaled(self.scale),
            instruction=times(self.instruction),
            verdict=times(self.verdict),
            reflection=times(self.reflection),
        )

    def as_json(self) -> dict[str, Any]:
        """The parameters for a result line."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: str(value) if isinstance(value, Length | Order) else list(value) if name == "modules" else value
            for name, value in values.items()
        }


_FOUR_AGENTS = {"system": 1728, "new": Length(624, 624), "output": Length(64, 64), "think_s": 0.0}
_HOTPOTQA = {"turns": Length(4, 7), "system": 1536, "new": Length(150, 150, 0.5), "output": Length(100, 100, 0.5)}
VALUES: dict[Preset, dict[str, Any]] = {
    "four-agents-react": {**_FOUR_AGENTS, "turns": Length(3, 3)},
    "four-agents-reflexion": {**_FOUR_AGENTS, "turns": Length(6, 6)},
    "react": {"turns": Length(8, 8), "system": 2048, "new": Length(512, 512, 0.5), "output": Length(150, 150, 0.5)},
    "reflexion": {
        "turns": Length(6, 6),
        "trials": 3,
        "system": 2048,
        "new": Length(512, 512, 0.5),
        "output": Length(150, 150, 0.5),
    },
    "fanout": {"turns": Length(4, 4), "system": 2048, "new": Length(512, 512, 0.5), "output": Length(150, 150, 0.5)},
    "chat": {
        "turns": Length(6, 6),
        "system": 512,
        "new": Length(100, 100, 0.5),
        "output": Length(250, 250, 0.5),
        "think_s": 5.0,
    },
    "hotpotqa": _HOTPOTQA,
    "icarus": {**_HOTPOTQA, "sessions": 128, "think_s": 0.0},
}


def preset_workload(preset: Preset, modules: Sequence[str], **changes: Any) -> Workload:
    """The preset's workload for these modules; `changes` are fields of Workload. Raises UsageError as Workload does."""
    return Workload(preset=preset, modules=tuple(modules), **(VALUES[preset] | changes))
