"""What `psserve simulate` was asked for, and the runs that this makes.

What times and memory are from: published figures or measured runs (`Basis`); and what the texts of options mean: lists
of loads and modules, and numbers of GPUs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from psserve.bench.metrics import Slo
from psserve.bench.result import ResultLine
from psserve.bench.simulator.calibration import Calibration, calibrate
from psserve.bench.simulator.costs import Costs, TransferCosts, costs_of, find_card, find_shape, pool_tokens
from psserve.bench.simulator.line import line_of
from psserve.bench.simulator.simulation import FleetLoad, simulate_cells
from psserve.bench.simulator.system import Setup, SystemName
from psserve.bench.workloads.choice import WorkloadChoice
from psserve.contracts.router_config import PolicyName
from psserve.errors import UsageError
from psserve.fleet.plan.one_pool import pools_of_one
from psserve.fleet.plan.sglang_args import reserved_tokens
from psserve.progress import Bars

SHOW_EVERY = 50
"""The bar moves after so many sessions."""
DEFAULT_CONCURRENCY = "16"
DEFAULT_SESSIONS = 200
"""Of a run, where the user says nothing; TURNOVER for each that goes on at a time if that is more."""
TURNOVER = 10


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A run for each system, number of modules and load."""

    systems: tuple[SystemName, ...]
    basis: Basis
    prefill: int
    decode: int
    modules: tuple[tuple[str, ...], ...]
    """Their names, for each run."""
    cells: int
    loads: tuple[FleetLoad, ...]
    prefill_policy: PolicyName
    decode_policy: PolicyName
    cores: float | None
    slo: Slo | None
    keep: int
    """Of so many sessions at most the requests are kept for percentiles."""
    command: str
    routers: int = 1
    jobs: int = 1
    """Cells that are simulated at a time."""

    def setup(self, system: SystemName, modules: tuple[str, ...]) -> Setup:
        """Of one cell. With one pool, it is as large as all pools otherwise. Raises UsageError for too few servers."""
        kv_tokens, decode_kv_tokens = self.basis.kv_tokens, self.basis.decode_kv_tokens
        if system == "one-pool":
            total = self.prefill * kv_tokens + self.decode * (decode_kv_tokens or kv_tokens)
            kv_tokens, decode_kv_tokens = pools_of_one(total, self.prefill, self.decode, longest=0)
        return Setup(
            system=system,
            modules=modules,
            prefill=self.prefill,
            decode=self.decode,
            costs=self.basis.costs,
            kv_tokens=kv_tokens,
            decode_kv_tokens=decode_kv_tokens,
            reserved_tokens=reserved_tokens(decode_kv_tokens or kv_tokens),
            prefill_policy=self.prefill_policy,
            decode_policy=self.decode_policy,
            routers=self.routers,
            longest_tokens=None if self.basis.calibration is None else self.basis.calibration.longest_tokens,
            cores=self.cores,
        )


def run_all(asked: Asked, progress: SimulationProgress) -> Iterator[ResultLine]:
    """One run after another, each as its result line. Raises UsageError before the first for what cannot be built."""
    setups = [asked.setup(system, modules) for modules in asked.modules for system in asked.systems]
    for setup in setups:
        for load in asked.loads:
            yield _run(asked, setup, load, progress)


def _run(asked: Asked, setup: Setup, load: FleetLoad, progress: SimulationProgress) -> ResultLine:
    title = f"{setup.system}, {len(setup.modules)} modules, {load}"
    progress.begin(title, load.sessions)
    began = time.perf_counter()
    every = math.ceil(load.sessions / asked.keep)
    outcome, workload = simulate_cells(setup, load, asked.cells, every, progress.ended, asked.jobs)
    seconds = time.perf_counter() - began
    requests = outcome.counters.requests
    progress.note(f"{title}: {requests} requests simulated in {seconds:.1f} s, {requests / seconds:.0f}/s")
    basis = dict(asked.basis.told) | {"cells": asked.cells}
    return line_of(outcome, setup, load, workload=workload, basis=basis, command=asked.command, slo=asked.slo)


class SimulationProgress(Bars):
    """How far a simulation is; elsewhere a line a run."""

    def __init__(self, stream: TextIO) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        super().__init__(stream, *columns)
        self._bar = self.add_task("", total=None)
        self._shown = 0

    def begin(self, title: str, sessions: int) -> None:
        """A run of so many sessions begins."""
        self._shown = 0
        self.reset(self._bar, description=title, total=sessions)

    def ended(self, sessions: int) -> None:
        """So many of its sessions are over."""
        if sessions >= self._shown + SHOW_EVERY:
            self._shown = sessions
            self.update(self._bar, completed=sessions)


@dataclass(frozen=True)
class Basis:
    """`told` goes into the result lines."""

    costs: Costs
    kv_tokens: int
    decode_kv_tokens: int | None
    told: Mapping[str, Any]
    calibration: Calibration | None = None


def published(
    model: str, hardware: str, kv_tokens: int | None, decode_kv_tokens: int | None, link_gb_s: float | None
) -> Basis:
    """From data sheets. Raises UsageError for a model or card that is not known, or if one does not fit the other."""
    shape, card = find_shape(model), find_card(hardware)
    costs = costs_of(shape, card)
    if link_gb_s is not None:
        costs = replace(costs, transfer=TransferCosts(costs.transfer.request_s, 1e-9 / link_gb_s))
    told = {"model": model, "hardware": hardware, "link_gb_s": round(1e-9 / costs.transfer.byte_s, 3)}
    return Basis(costs, kv_tokens or pool_tokens(shape, card), decode_kv_tokens, told)


def measured(path: Path, kv_tokens: int | None, decode_kv_tokens: int | None) -> Basis:
    """From the records of runs. Raises BenchError for a file that is none, UsageError without a pool's size."""
    if kv_tokens is None:
        raise UsageError("--calibrate tells times, not memory: give --kv-tokens too, the KV pool of a server")
    calibration = calibrate([path])
    told = {"calibrated": str(path), "error_pct": {name: fit.error_pct for name, fit in calibration.fits.items()}}
    return Basis(calibration.costs, kv_tokens, decode_kv_tokens, told, calibration)


def fleet_loads(
    workload: WorkloadChoice, concurrency: str | None, rates: str | None, warmup: int, modules: tuple[str, ...]
) -> tuple[FleetLoad, ...]:
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
            return (FleetLoad(workload=plain, sessions=sessions, warmup=warmup),)
    if rates is not None:
        open_loop = FleetLoad(workload=plain, sessions=sessions or DEFAULT_SESSIONS, warmup=warmup)
        return tuple(replace(open_loop, rate=rate) for rate in _rates(rates))
    counts = [count_of("--concurrency", text) for text in (concurrency or DEFAULT_CONCURRENCY).split(",")]
    return tuple(
        FleetLoad(
            workload=plain,
            sessions=sessions or max(DEFAULT_SESSIONS, TURNOVER * count),
            concurrency=count,
            warmup=warmup,
        )
        for count in counts
    )


def module_lists(text: str) -> tuple[tuple[str, ...], ...]:
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
