"""From a workload to its sessions. Each session has random numbers of its own: more of them do not change the first."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count, islice

from psserve.bench.session import Call, Session, Step
from psserve.bench.workloads.shapes import STEPS
from psserve.bench.workloads.workload import Workload


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
