"""The agent workload: sessions whose context grows turn by turn and is read by several modules in each."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

VOCABULARY = 150_000


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is asked, at random but the same for the same seed. Lengths are tokens, times seconds; ranges inclusive."""

    seed: int = 1
    sessions: int = 400
    sessions_per_s: float = 0.5
    """Poisson arrivals."""
    agents: int = 6
    """Kinds of sessions; those of one kind begin with the same system prompt."""
    modules: int = 4
    """Each reads the context in each turn, the one after the other, with an instruction of its own at the end."""
    turns: tuple[int, int] = (4, 12)
    system: tuple[int, int] = (600, 2_000)
    task: tuple[int, int] = (300, 4_000)
    instruction: int = 40
    step: tuple[int, int] = (60, 400)
    """What a module's answer and its tools' output add to the context."""
    pause_s: float = 2.0
    """Mean time from one module's prefill to the next one's request (exponential): it generates, tools run."""


@dataclass(frozen=True)
class Step:
    """One request of a session."""

    prompt: array[int]
    """Token ids."""
    pause_s: float
    """Time since the session's last request was prefilled."""


@dataclass(frozen=True)
class Session:
    """The requests of one agent's run, in order: each waits for the one before."""

    name: str
    start_s: float
    steps: Sequence[Step]


def make_sessions(workload: Workload) -> list[Session]:
    """All sessions in order of arrival."""
    rng = random.Random(workload.seed)
    systems = [_tokens(rng, rng.randint(*workload.system)) for _ in range(workload.agents)]
    instructions = [_tokens(rng, workload.instruction) for _ in range(workload.modules)]
    sessions, now = [], 0.0
    for number in range(workload.sessions):
        now += rng.expovariate(workload.sessions_per_s)
        context = rng.choice(systems) + _tokens(rng, rng.randint(*workload.task))
        steps = []
        for _ in range(rng.randint(*workload.turns)):
            for instruction in instructions:
                steps.append(Step(context + instruction, rng.expovariate(1 / workload.pause_s)))
                context = context + _tokens(rng, rng.randint(*workload.step))
        sessions.append(Session(f"session-{number}", now, steps))
    return sessions


def _tokens(rng: random.Random, count: int) -> array[int]:
    return array("I", rng.choices(range(VOCABULARY), k=count))
