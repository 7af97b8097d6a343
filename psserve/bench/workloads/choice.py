"""What the user wants to be asked, a preset with changes or a trace, and the sessions of a preset.

Each session has random numbers of its own: more of them do not change the first. The steps of a session are made by one
function for each preset.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

from psserve.bench.session import BLOCK_TOKENS, Call, Session, Step
from psserve.bench.workloads.trace import TraceOptions, modules_of, read_trace
from psserve.bench.workloads.workload import Preset, Workload, preset_workload
from psserve.errors import UsageError

FOR_TRACES = ("order", "seed", "scale", "sessions")
"""Fields of Workload that mean something with a trace; all else it says by itself."""


@dataclass(frozen=True, kw_only=True)
class WorkloadChoice:
    """The same choice makes the same sessions for the same modules."""

    preset: Preset | None = None
    """None: a trace."""
    trace: Path | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of Workload that are not the preset's; with a trace only those of `FOR_TRACES`."""
    block_tokens: int = BLOCK_TOKENS
    """Of a trace."""
    single_module: str | None = None
    """Asked in all roles."""

    def __post_init__(self) -> None:
        if (self.preset is None) == (self.trace is None):
            raise UsageError("give a --workload or a --trace, not both")
        if self.trace is not None and (fixed := [name for name in self.changes if name not in FOR_TRACES]):
            raise UsageError(f"a trace says by itself what {', '.join(fixed)} would say: leave that out")

    def sessions(self, modules: tuple[str, ...]) -> tuple[Iterable[Session], dict[str, Any]]:
        """The sessions, a list unless they have no end, and their description for the result line.

        `modules`: who takes turns; of a trace, who answers lines that name no model.

        Raises UsageError for parameters that make no sense, TraceError for a broken trace.
        """
        made, described = self._trace(modules) if self.trace is not None else self._generated(modules)
        if self.single_module is not None:
            single = with_single_module(made, self.single_module)
            made = list(single) if isinstance(made, list) else single
            described["single_module"] = self.single_module
        return made, described

    def _generated(self, modules: tuple[str, ...]) -> tuple[Iterable[Session], dict[str, Any]]:
        assert self.preset is not None, "one of the two was given"
        workload = preset_workload(self.preset, modules, **self.changes)
        endless = workload.sessions is None
        return (iterate_sessions(workload) if endless else make_sessions(workload)), workload.as_json()

    def _trace(self, modules: tuple[str, ...]) -> tuple[Iterable[Session], dict[str, Any]]:
        assert self.trace is not None, "one of the two was given"
        taken = {name: value for name, value in self.changes.items() if name != "sessions"}
        options = TraceOptions(modules=modules, block_tokens=self.block_tokens, **taken)
        options.order.check(modules)
        sessions = read_trace(self.trace, options)[: self.changes.get("sessions")]
        return sessions, {
            "preset": "trace",
            "trace": str(self.trace),
            "sessions": len(sessions),
            "modules": list(modules_of(sessions)),
            "order": str(options.order),
            "seed": options.seed,
            "scale": options.scale,
            "block_tokens": options.block_tokens,
        }


def make_sessions(workload: Workload) -> list[Session]:
    """All sessions in the order of their arrival. `workload.sessions` must not be None."""
    assert workload.sessions is not None, "endless workloads are for iterate_sessions"
    return list(iterate_sessions(workload))


def iterate_sessions(workload: Workload) -> Iterator[Session]:
    """The sessions one by one, for ever where the workload sets no number."""
    scaled = workload.scaled()
    made = (_session(scaled, number, start) for number, start in zip(count(), _starts(scaled), strict=False))
    return islice(made, workload.sessions)


def with_single_module(sessions: Iterable[Session], module: str) -> Iterator[Session]:
    """The same work with one model in all roles."""
    for session in sessions:
        steps = tuple(_with_module(step, module) for step in session.steps)
        yield replace(session, steps=steps)


def _with_module(step: Step, module: str) -> Step:
    return replace(step, calls=tuple(Call(module, call.output_tokens) for call in step.calls))


def _session(workload: Workload, number: int, start_s: float | None) -> Session:
    rng = random.Random(f"{workload.seed}/session/{number}")
    system = rng.randrange(workload.system_prompts)
    turns = workload.order.turns(rng, workload.modules, number)
    return Session(
        id=f"{workload.preset}-{workload.seed}-{number}",
        system=f"{workload.preset}-{system}",
        system_tokens=workload.system,
        steps=tuple(STEPS[workload.preset](workload, rng, turns)),
        start_s=start_s,
    )


def _starts(workload: Workload) -> Iterator[float | None]:
    rng = random.Random(f"{workload.seed}/arrivals")
    now = 0.0
    while True:
        if workload.sessions_per_s is None:
            yield None
            continue
        yield now
        mean = 1 / workload.sessions_per_s
        now += rng.expovariate(1 / mean) if workload.arrival == "poisson" else mean


Turns = Iterator[str]


def react(workload: Workload, rng: random.Random, turns: Turns) -> Iterator[Step]:
    """Each turn a module thinks and acts; what its action brings is read by the next one."""
    for turn in range(workload.turns.draw(rng)):
        yield _step(workload, rng, [next(turns)], first=turn == 0)


def workflow(workload: Workload, rng: random.Random, turns: Turns) -> Iterator[Step]:
    """Each turn as many calls as there are modules: in round-robin order all of them act, one after the other."""
    for turn in range(workload.turns.draw(rng)):
        for place in range(len(workload.modules)):
            yield _step(workload, rng, [next(turns)], first=turn == place == 0)


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
    "four-agents-react": workflow,
    "four-agents-reflexion": workflow,
    "react": react,
    "reflexion": reflexion,
    "fanout": fanout,
    "chat": chat,
    "hotpotqa": react,
    "icarus": react,
}
