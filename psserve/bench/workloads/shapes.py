"""The steps of a session, for each kind of workload."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from psserve.bench.session import Call, Step
from psserve.bench.workloads.workload import Preset, Workload

Turns = Iterator[str]


def react(workload: Workload, rng: random.Random, turns: Turns) -> Iterator[Step]:
    """Each turn a module thinks and acts; what its action brings is read by the next one."""
    for turn in range(workload.turns.draw(rng)):
        yield _step(workload, rng, [next(turns)], first=turn == 0)


def reflexion(workload: Workload, rng: random.Random, turns: Turns) -> Iterator[Step]:
    """Trials of acting turns; one module judges each trial, and before the next one another reflects on it."""
    first = True
    for trial in range(workload.trials):
        for _ in range(workload.turns.draw(rng)):
            yield _step(workload, rng, [next(turns)], first=first)
            first = False
        yield Step(workload.instruction, (Call(next(turns), workload.verdict),))
        if trial < workload.trials - 1:
            yield Step(workload.instruction, (Call(next(turns), workload.reflection),))


def fanout(workload: Workload, rng: random.Random, turns: Turns) -> Iterator[Step]:
    """Each turn all modules are asked at once about the same context; the first one's answer joins it."""
    for turn in range(workload.turns.draw(rng)):
        first = workload.modules.index(next(turns))
        modules = [*workload.modules[first:], *workload.modules[:first]]
        yield _step(workload, rng, modules, first=turn == 0)


def chat(workload: Workload, rng: random.Random, turns: Turns) -> Iterator[Step]:
    """A person talks to one module: what modules share is the system prompt alone."""
    module = next(turns)
    for turn in range(workload.turns.draw(rng)):
        yield _step(workload, rng, [module], first=turn == 0)


def _step(workload: Workload, rng: random.Random, modules: list[str], *, first: bool) -> Step:
    """One step; before the first one nobody waits."""
    delay_s = 0.0 if first or not workload.think_s else rng.expovariate(1 / workload.think_s)
    new_tokens = workload.new.draw(rng)
    output_tokens = workload.output.draw(rng)  # of all calls alike: which of them is slow is the server's doing
    return Step(new_tokens, tuple(Call(module, output_tokens) for module in modules), delay_s)


STEPS: dict[Preset, Callable[[Workload, random.Random, Turns], Iterator[Step]]] = {
    "react": react,
    "reflexion": reflexion,
    "fanout": fanout,
    "chat": chat,
}
