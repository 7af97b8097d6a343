"""One simulated run: `simulate(setup, sessions, concurrency)`.

And a fleet too large for one router: equal cells with a router each, simulated one after another or side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from multiprocessing import get_context
from typing import Any

import simpy

from psserve.bench.record import RequestRecord
from psserve.bench.session import Session
from psserve.bench.simulator.client import Agents
from psserve.bench.simulator.kinds import Paired, Unified
from psserve.bench.simulator.server import Job
from psserve.bench.simulator.system import PAIRED, Setup, System, Totals
from psserve.bench.workloads.choice import WorkloadChoice
from psserve.errors import UsageError

POOL_BLOCKS = 1024
"""The router sees prompts in blocks of such a length that about so many fill a server's KV pool."""
OnEnded = Callable[[int], None]
"""Is called with the number of sessions that have ended."""


@dataclass(frozen=True, kw_only=True)
class SimulatedRun:
    """What came of a run."""

    records: list[RequestRecord]
    """Of one session in `every`, in order of completion."""
    every: int
    counters: Totals
    duration_s: float
    """Until the last answer."""
    busy_s: list[float]
    """Of each device, in the servers' order; one, where all share some cores."""
    evicted_pages: list[int]
    """Of each server."""

    def with_cell(self, other: SimulatedRun) -> SimulatedRun:
        """This and another part of the same fleet, which shares nothing with it."""
        self.counters.add(other.counters)
        return replace(
            self,
            records=self.records + other.records,
            duration_s=max(self.duration_s, other.duration_s),
            busy_s=self.busy_s + other.busy_s,
            evicted_pages=self.evicted_pages + other.evicted_pages,
        )


def simulate(
    setup: Setup,
    sessions: Iterable[Session],
    concurrency: int | None = None,
    *,
    every: int = 1,
    warmup: int = 0,
    progress: OnEnded = lambda ended: None,
) -> SimulatedRun:
    """Run all sessions to their end: each when it is due, or `concurrency` of them at any time.

    Sessions may be made while they are asked for. Only requests of one in `every` are kept as records; all are counted.
    Those of the first `warmup` sessions are marked as such.
    Raises UsageError for a prompt and answer that do not fit into a server's KV pool.
    """
    return _Simulation(setup, every, warmup, progress).run(iter(sessions), concurrency)


class _Simulation:
    def __init__(self, setup: Setup, every: int, warmup: int, progress: OnEnded) -> None:
        block_tokens = max(setup.page_size, setup.kv_tokens // POOL_BLOCKS)
        kind = Paired if setup.system in PAIRED else Unified
        self._clock = simpy.Environment()
        self._system: System = kind(self._clock, setup, block_tokens, self._answered)
        self._agents = Agents(self._clock, setup, block_tokens, self._system.submit, self._ended)
        self._every = every
        self._warmup = warmup
        self._progress = progress
        self._records: list[RequestRecord] = []

    def run(self, sessions: Iterator[Session], concurrency: int | None) -> SimulatedRun:
        if concurrency is None:
            self._agents.open_loop(sessions)
        else:
            self._agents.closed_loop(sessions, concurrency)
        self._clock.run()
        return self._outcome()

    def _answered(self, job: Job) -> None:
        if (job.number - 1) % self._every == 0:
            self._records.append(job.record(self._clock.now, warmup=job.number <= self._warmup))
        self._agents.answered(job)

    def _ended(self, session: Session) -> None:
        counters = self._system.counters
        counters.sessions += 1
        self._progress(counters.sessions)

    def _outcome(self) -> SimulatedRun:
        system, duration = self._system, self._clock.now
        return SimulatedRun(
            records=self._records,
            every=self._every,
            counters=system.counters,
            duration_s=duration,
            busy_s=[device.busy_s for device in system.devices],
            evicted_pages=[server.pool.evicted for server in system.servers.values()],
        )


@dataclass(frozen=True, kw_only=True)
class FleetLoad:
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
    setup: Setup,
    load: FleetLoad,
    cells: int,
    every: int = 1,
    progress: OnEnded = lambda ended: None,
    jobs: int = 1,
) -> tuple[SimulatedRun, dict[str, Any]]:
    """`cells` times `setup`, each with its share of the load and a seed of its own. And the workload, for the result.

    Only one session in `every` is kept as records. With several `jobs`, so many processes simulate a cell each, and
    progress is told by the cell; the result is the same. Raises UsageError where a cell would have nothing to do.
    """
    if cells > 1 and load.workload.trace is not None:
        raise UsageError("a trace is for one cell: its sessions are not made anew for each")
    if load.sessions < cells or (load.concurrency is not None and load.concurrency < cells):
        raise UsageError(f"{cells} cells need at least as many sessions, and as many at a time")
    whole: SimulatedRun | None = None
    described: dict[str, Any] = {}
    for outcome, told in _outcomes(setup, [_share(load, cell, cells) for cell in range(cells)], every, progress, jobs):
        described = described or told | {"sessions": load.sessions, "sessions_per_s": load.rate}
        whole = outcome if whole is None else whole.with_cell(outcome)
    assert whole is not None
    return whole, described


def _outcomes(
    setup: Setup, shares: Sequence[FleetLoad], every: int, progress: OnEnded, jobs: int
) -> Iterator[tuple[SimulatedRun, dict[str, Any]]]:
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


def _after(done: int, progress: OnEnded) -> OnEnded:
    return lambda ended: progress(done + ended)


def _share(load: FleetLoad, cell: int, cells: int) -> FleetLoad:
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
    setup: Setup, load: FleetLoad, every: int, progress: OnEnded = lambda ended: None
) -> tuple[SimulatedRun, dict[str, Any]]:
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
