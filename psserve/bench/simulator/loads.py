"""The texts of `psserve simulate`'s options: lists of loads and modules, and numbers of GPUs."""

from __future__ import annotations

import math
from dataclasses import replace

from psserve.bench.simulator.cells import Load
from psserve.bench.workloads.choice import WorkloadChoice
from psserve.errors import UsageError

CONCURRENCY = "16"
SESSIONS = 200
"""Of a run, where the user says nothing; TURNOVER for each that goes on at a time if that is more."""
TURNOVER = 10


def loads_of(
    workload: WorkloadChoice, concurrency: str | None, rates: str | None, warmup: int, modules: tuple[str, ...]
) -> tuple[Load, ...]:
    """A load for each number of `8,16,32`; of a trace without numbers, one: as its sessions start.

    Raises UsageError for other texts and for several kinds at once, TraceError for a broken trace.
    """
    changes = dict(workload.changes)
    single, sessions = changes.pop("sessions_per_s", None), changes.pop("sessions", None)
    if sum(option is not None for option in (concurrency, rates, single)) > 1:
        raise UsageError("give one of --concurrency (closed loop), --rates and --rate (open loop)")
    if single is not None:
        rates = f"{single!r}"
    if rates is None:
        changes.pop("arrival", None)
    plain = replace(workload, changes=changes)
    if workload.trace is not None:
        if rates is not None:
            raise UsageError("a trace says by itself when its sessions start: leave --rate and --rates out")
        made, _ = workload.sessions(modules)
        sessions = len(list(made))
        if concurrency is None:
            return (Load(workload=plain, sessions=sessions, warmup=warmup),)
    if rates is not None:
        open_loop = Load(workload=plain, sessions=sessions or SESSIONS, warmup=warmup)
        return tuple(replace(open_loop, rate=rate) for rate in _rates(rates))
    counts = [count_of("--concurrency", text) for text in (concurrency or CONCURRENCY).split(",")]
    return tuple(
        Load(workload=plain, sessions=sessions or max(SESSIONS, TURNOVER * count), concurrency=count, warmup=warmup)
        for count in counts
    )


def modules_of(text: str) -> tuple[tuple[str, ...], ...]:
    """`1,4,16`: so many modules, named m1, m2, ..., for a run each. `math,code`: these. Raises UsageError."""
    parts = [part.strip() for part in text.split(",")]
    if all(part.isdecimal() for part in parts):
        return tuple(module_names(count_of("--modules", part)) for part in parts)
    if not all(parts):
        raise UsageError(f"--modules {text}: give numbers, as in 1,4,16, or names, as in math,code")
    return (tuple(parts),)


def module_names(count: int) -> tuple[str, ...]:
    """m1, m2, ..."""
    return tuple(f"m{number}" for number in range(1, count + 1))


def gpus_of(text: str) -> tuple[int, int]:
    """`4x4`: prefill and decode servers. Raises UsageError."""
    prefill, cross, decode = text.partition("x")
    if not cross:
        raise UsageError(f"--gpus {text}: give prefill x decode servers, as in 4x4")
    return count_of("--gpus", prefill), count_of("--gpus", decode)


def count_of(option: str, text: str) -> int:
    """A whole number from 1. Raises UsageError."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise UsageError(f"{option}: {text!r} is not a whole number from 1")
    return int(text)


def _rates(text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 < value < math.inf for value in values):
        raise UsageError(f"--rates {text}: give numbers above 0, as in 0.5,1,2")
    return values
