"""A workload: what is asked, in all its parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from psserve.bench.workloads.length import Length
from psserve.bench.workloads.order import Order
from psserve.errors import UsageError

Preset = Literal["react", "reflexion", "fanout", "chat"]
PRESETS: tuple[Preset, ...] = ("react", "reflexion", "fanout", "chat")
Arrival = Literal["poisson", "constant"]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The same parameters make the same sessions, here and anywhere. Lengths are in tokens."""

    preset: Preset
    modules: tuple[str, ...]
    seed: int = 1
    sessions: int | None = 32
    """None: without an end."""
    order: Order = Order()  # noqa: RUF009 # it is frozen
    turns: Length
    """Calls of a session (`fanout`: rounds of calls; `reflexion`: acting calls of a trial; `chat`: messages)."""
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
        if self.turns.high < 1 or self.output.high < 1 or min(self.trials, self.system_prompts) < 1:
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
