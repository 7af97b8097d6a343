"""A fleet too large for one router: equal cells with a router each, simulated one after another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from psserve.bench.simulator.setup import Setup
from psserve.bench.simulator.simulation import Outcome, Progress, simulate
from psserve.bench.workloads.choice import WorkloadChoice
from psserve.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a whole fleet is asked: `concurrency` sessions at any time, or `rate` of them a second, or neither: the
    sessions of a trace when they are due."""

    workload: WorkloadChoice
    """Without its number of sessions, and without their rate."""
    sessions: int
    concurrency: int | None = None
    rate: float | None = None
    warmup: int = 0
    """So many sessions, the first ones, do not count."""

    def __str__(self) -> str:
        if self.concurrency is not None:
            return f"{self.concurrency} at a time"
        return "as in the trace" if self.rate is None else f"{self.rate:g} sessions/s"


def simulate_cells(
    setup: Setup, load: Load, cells: int, every: int = 1, progress: Progress = lambda ended: None
) -> tuple[Outcome, dict[str, Any]]:
    """`cells` times `setup`, each with its share of the load and a seed of its own. And the workload, for the result.

    Only one session in `every` is kept as records. Raises UsageError where a cell would have nothing to do.
    """
    if cells > 1 and load.workload.trace is not None:
        raise UsageError("a trace is for one cell: its sessions are not made anew for each")
    if load.sessions < cells or (load.concurrency is not None and load.concurrency < cells):
        raise UsageError(f"{cells} cells need at least as many sessions, and as many at a time")
    whole: Outcome | None = None
    described: dict[str, Any] = {}
    for cell in range(cells):
        done = whole.counters.sessions if whole else 0
        outcome, told = _simulate_cell(setup, _share(load, cell, cells), every, _from(done, progress))
        described = described or told | {"sessions": load.sessions, "sessions_per_s": load.rate}
        whole = outcome if whole is None else whole.with_cell(outcome)
    assert whole is not None
    return whole, described


def _from(done: int, progress: Progress) -> Progress:
    return lambda ended: progress(done + ended)


def _share(load: Load, cell: int, cells: int) -> Load:
    """Of what does not divide evenly, the first cells get one more."""

    def part(total: int) -> int:
        return total // cells + (cell < total % cells)

    seed = load.workload.changes.get("seed", 1)
    changes = dict(load.workload.changes) | ({"seed": seed + cell} if cell else {})
    return replace(
        load,
        workload=replace(load.workload, changes=changes),
        sessions=part(load.sessions),
        concurrency=None if load.concurrency is None else part(load.concurrency),
        rate=None if load.rate is None else load.rate / cells,
        warmup=part(load.warmup),
    )


def _simulate_cell(setup: Setup, load: Load, every: int, progress: Progress) -> tuple[Outcome, dict[str, Any]]:
    changes: dict[str, Any] = {"sessions": None}
    if load.rate is not None:
        changes |= {"sessions_per_s": load.rate, "arrival": load.workload.changes.get("arrival", "poisson")}
    if load.workload.trace is not None:
        changes = {"sessions": load.sessions}
    choice = replace(load.workload, changes=dict(load.workload.changes) | changes)
    sessions, described = choice.sessions(setup.modules)
    asked = islice(sessions, load.sessions)
    outcome = simulate(setup, asked, load.concurrency, every=every, warmup=load.warmup, progress=progress)
    return outcome, described
