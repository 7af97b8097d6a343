"""Small sessions and set-ups for the simulator's tests."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from psserve.bench.session import Call, Session, Step
from psserve.bench.simulator.costs import Costs, DecodeCosts, PrefillCosts, TransferCosts
from psserve.bench.simulator.system import Setup, SystemName

MODULES = ("a", "b", "c", "d")
COSTS = Costs(
    PrefillCosts(0.01, 1e-4, 1e-9), DecodeCosts(0.01, 1e-7, 1e-4), TransferCosts(0.002, 1e-11), 1_000, router_s=0.001
)


def setup(system: SystemName = "shared", **changes: object) -> Setup:
    made = Setup(system=system, modules=MODULES, prefill=4, decode=4, costs=COSTS, kv_tokens=100_000)
    return replace(made, **changes)  # type: ignore[arg-type]


def one_call(name: str, new: int, output: int, start_s: float | None = None, module: str = "a") -> Session:
    """A session of one request, without a system prompt."""
    return Session(name, "none", 0, (Step(new, (Call(module, output),)),), start_s)


def agents(count: int, rate: float | None = None, *, seed: int = 1, turns: int = 6, fan: int = 1) -> Iterator[Session]:
    """Sessions whose context grows; in every step `fan` modules are called at once, each step begins with the next."""
    rng = random.Random(seed)
    now = 0.0
    for number in range(count):
        now += rng.expovariate(rate) if rate else 0.0
        steps = tuple(_step(rng, turn, fan, MODULES) for turn in range(turns))
        yield Session(f"session-{number}", f"system-{number % 2}", 600, steps, now if rate else None)


def _step(rng: random.Random, turn: int, fan: int, modules: Sequence[str]) -> Step:
    calls = tuple(Call(modules[(turn + index) % len(modules)], rng.randint(1, 100)) for index in range(fan))
    return Step(rng.randint(20, 800), calls, rng.expovariate(2))
