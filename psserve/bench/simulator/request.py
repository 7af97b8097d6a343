"""What `psserve simulate` was asked for, and the runs that this makes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

from psserve.bench.result import Line
from psserve.bench.simulator.basis import Basis
from psserve.bench.simulator.cells import Load, simulate_cells
from psserve.bench.simulator.line import line_of
from psserve.bench.simulator.progress import SimulationProgress
from psserve.bench.simulator.setup import Setup, SystemName
from psserve.bench.slo import Slo
from psserve.bench.workloads.choice import WorkloadChoice
from psserve.errors import UsageError
from psserve.router.policies import PolicyName

CONCURRENCY = 16
SESSIONS = 200
"""Of a run, where the user says nothing; TURNOVER for each that goes on at a time if that is more."""
TURNOVER = 10


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A run for each system, number of modules and load."""

    systems: tuple[SystemName, ...]
    basis: Basis
    prefill: int
    decode: int
    modules: tuple[int, ...]
    cells: int
    loads: tuple[Load, ...]
    prefill_policy: PolicyName
    decode_policy: PolicyName
    cores: int | None
    slo: Slo | None
    keep: int
    """Of so many sessions at most the requests are kept for percentiles."""
    command: str

    def setup(self, system: SystemName, modules: int) -> Setup:
        """Of one cell. Raises UsageError where its servers are too few."""
        return Setup(
            system=system,
            modules=module_names(modules),
            prefill=self.prefill,
            decode=self.decode,
            costs=self.basis.costs,
            kv_tokens=self.basis.kv_tokens,
            decode_kv_tokens=self.basis.decode_kv_tokens,
            prefill_policy=self.prefill_policy,
            decode_policy=self.decode_policy,
            longest_tokens=None if self.basis.calibration is None else self.basis.calibration.longest_tokens,
            cores=self.cores,
        )


def run_all(asked: Asked, progress: SimulationProgress) -> Iterator[Line]:
    """One run after another, each as its result line. Raises UsageError before the first for what cannot be built."""
    setups = [asked.setup(system, modules) for modules in asked.modules for system in asked.systems]
    for setup in setups:
        for load in asked.loads:
            yield _run(asked, setup, load, progress)


def _run(asked: Asked, setup: Setup, load: Load, progress: SimulationProgress) -> Line:
    title = f"{setup.system}, {len(setup.modules)} modules, {load}"
    progress.begin(title, load.sessions)
    began = time.perf_counter()
    every = math.ceil(load.sessions / asked.keep)
    outcome, workload = simulate_cells(setup, load, asked.cells, every, progress.ended)
    seconds = time.perf_counter() - began
    requests = outcome.counters.requests
    progress.note(f"{title}: {requests} requests simulated in {seconds:.1f} s, {requests / seconds:.0f}/s")
    basis = dict(asked.basis.told) | {"cells": asked.cells}
    return line_of(outcome, setup, load, workload=workload, basis=basis, command=asked.command, slo=asked.slo)


def module_names(count: int) -> tuple[str, ...]:
    """m1, m2, ...: what `--order` may name."""
    return tuple(f"m{number}" for number in range(1, count + 1))


def loads(workload: WorkloadChoice, concurrency: str | None, rates: str | None, warmup: int = 0) -> tuple[Load, ...]:
    """A load for each number of `8,16,32`. Raises UsageError for other texts, and for both or a single rate too."""
    if concurrency is not None and rates is not None:
        raise UsageError("give --concurrency (closed loop) or --rates (open loop), not both")
    changes = dict(workload.changes)
    single = changes.pop("sessions_per_s", None)
    sessions = changes.pop("sessions", None)
    if single is not None:
        if concurrency is not None or rates is not None:
            raise UsageError("give one of --concurrency, --rate and --rates")
        rates = f"{single:g}"
    plain = WorkloadChoice(
        preset=workload.preset,
        trace=workload.trace,
        changes={name: value for name, value in changes.items() if name != "arrival" or rates is not None},
        block_tokens=workload.block_tokens,
        single_module=workload.single_module,
    )
    if rates is not None:
        return tuple(
            Load(workload=plain, sessions=sessions or SESSIONS, rate=rate, warmup=warmup)
            for rate in numbers("--rates", rates)
        )
    counts = [count_of("--concurrency", text) for text in (concurrency or str(CONCURRENCY)).split(",")]
    return tuple(
        Load(workload=plain, sessions=sessions or max(SESSIONS, TURNOVER * count), concurrency=count, warmup=warmup)
        for count in counts
    )


def numbers(option: str, text: str) -> list[float]:
    """The numbers above 0 in `0.5,1,2`. Raises UsageError."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 < value < math.inf for value in values):
        raise UsageError(f"{option} {text}: give numbers above 0, as in 0.5,1,2")
    return values


def count_of(option: str, text: str) -> int:
    """A whole number from 1. Raises UsageError."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise UsageError(f"{option}: {text!r} is not a whole number from 1")
    return int(text)


def gpus_of(text: str) -> tuple[int, int]:
    """`4x4`: prefill and decode servers. Raises UsageError."""
    prefill, cross, decode = text.partition("x")
    if not cross:
        raise UsageError(f"--gpus {text}: give prefill x decode servers, as in 4x4")
    return count_of("--gpus", prefill), count_of("--gpus", decode)
