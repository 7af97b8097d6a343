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
from psserve.contracts.router_config import PolicyName


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
    loads: tuple[Load, ...]
    prefill_policy: PolicyName
    decode_policy: PolicyName
    cores: float | None
    slo: Slo | None
    keep: int
    """Of so many sessions at most the requests are kept for percentiles."""
    command: str
    jobs: int = 1
    """Cells that are simulated at a time."""

    def setup(self, system: SystemName, modules: tuple[str, ...]) -> Setup:
        """Of one cell. Raises UsageError where its servers are too few."""
        return Setup(
            system=system,
            modules=modules,
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
    outcome, workload = simulate_cells(setup, load, asked.cells, every, progress.ended, asked.jobs)
    seconds = time.perf_counter() - began
    requests = outcome.counters.requests
    progress.note(f"{title}: {requests} requests simulated in {seconds:.1f} s, {requests / seconds:.0f}/s")
    basis = dict(asked.basis.told) | {"cells": asked.cells}
    return line_of(outcome, setup, load, workload=workload, basis=basis, command=asked.command, slo=asked.slo)
