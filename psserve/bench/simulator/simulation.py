"""One simulated run: `simulate(setup, sessions, concurrency)`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import simpy

from psserve.bench.record import RequestRecord
from psserve.bench.session import Session
from psserve.bench.simulator.client import Agents
from psserve.bench.simulator.counters import Counters
from psserve.bench.simulator.job import Job
from psserve.bench.simulator.paired import Paired
from psserve.bench.simulator.setup import Setup
from psserve.bench.simulator.system import System
from psserve.bench.simulator.unified import Unified

POOL_BLOCKS = 1024
"""The router sees prompts in blocks of such a length that about so many fill a server's KV pool."""

Progress = Callable[[int], None]
"""Is told how many sessions have ended."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run."""

    records: list[RequestRecord]
    """Of one session in `every`, in order of completion."""
    every: int
    counters: Counters
    duration_s: float
    """Until the last answer."""
    busy_s: list[float]
    """Of each device, in the servers' order; one, where all share some cores."""
    evicted_pages: list[int]
    """Of each server."""

    def with_cell(self, other: Outcome) -> Outcome:
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
    progress: Progress = lambda ended: None,
) -> Outcome:
    """Run all sessions to their end: each when it is due, or `concurrency` of them at any time.

    Sessions may be made while they are asked for. Only requests of one in `every` are kept as records; all are counted.
    Those of the first `warmup` sessions are marked as such.
    Raises UsageError for a prompt and answer that do not fit into a server's KV pool.
    """
    return _Simulation(setup, every, warmup, progress).run(iter(sessions), concurrency)


class _Simulation:
    def __init__(self, setup: Setup, every: int, warmup: int, progress: Progress) -> None:
        block_tokens = max(setup.page_size, setup.kv_tokens // POOL_BLOCKS)
        kind = Paired if setup.system in ("shared", "disaggregated") else Unified
        self._clock = simpy.Environment()
        self._system: System = kind(self._clock, setup, block_tokens, self._answered)
        self._agents = Agents(self._clock, setup, block_tokens, self._system.submit, self._ended)
        self._every = every
        self._warmup = warmup
        self._progress = progress
        self._records: list[RequestRecord] = []

    def run(self, sessions: Iterator[Session], concurrency: int | None) -> Outcome:
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

    def _outcome(self) -> Outcome:
        system, duration = self._system, self._clock.now
        return Outcome(
            records=self._records,
            every=self._every,
            counters=system.counters,
            duration_s=duration,
            busy_s=[device.busy_s for device in system.devices],
            evicted_pages=[server.pool.evicted for server in system.servers.values()],
        )
