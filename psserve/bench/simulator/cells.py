"""A fleet too large for one router: equal cells with a router each, simulated one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from multiprocessing import get_context
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
    setup: Setup, load: Load, cells: int, every: int = 1, progress: Progress = lambda ended: None, jobs: int = 1
) -> tuple[Outcome, dict[str, Any]]:
    """`cells` times `setup`, each with its share of the load and a seed of its own. And the workload, for the result.

    Only one session in `every` is kept as records. With several `jobs`, so many processes simulate a cell each, and
    progress is told by the cell; the result is the same. Raises UsageError where a cell would have nothing to do.
    """
    if cells > 1 and load.workload.trace is not None:
        raise UsageError("a trace is for one cell: its sessions are not made anew for each")
    if load.sessions < cells or (load.concurrency is not None and load.concurrency < cells):
        raise UsageError(f"{cells} cells need at least as many sessions, and as many at a time")
    whole: Outcome | None = None
    described: dict[str, Any] = {}
    for outcome, told in _outcomes(setup, [_share(load, cell, cells) for cell in range(cells)], every, progress, jobs):
        described = described or told | {"sessions": load.sessions, "sessions_per_s": load.rate}
        whole = outcome if whole is None else whole.with_cell(outcome)
    assert whole is not None
    return whole, described


def _outcomes(
    setup: Setup, shares: Sequence[Load], every: int, progress: Progress, jobs: int
) -> Iterator[tuple[Outcome, dict[str, Any]]]:
    """Of each cell, in order."""
    done = 0
    if jobs == 1 or len(shares) == 1:
        for share in shares:
            yield _simulate_cell(setup, share, every, _after(done, progress))
            done += share.sessions
        return
    with ProcessPoolExecutor(min(jobs, len(shares)), get_context("spawn")) as pool:
        for share, result in zip(shares, pool.map(partial(_simulate_cell, setup, every=every), shares), strict=True):
            done += share.sessions
            progress(done)
            yield result


def _after(done: int, progress: Progress) -> Progress:
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


def _simulate_cell(
    setup: Setup, load: Load, every: int, progress: Progress = lambda ended: None
) -> tuple[Outcome, dict[str, Any]]:
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
