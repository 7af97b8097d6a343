"""Prompts that wait to be computed, first come first served, and the batches that are made of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from psserve.bench.simulator.job import Job
from psserve.bench.simulator.pool import Pool


@dataclass(frozen=True, slots=True)
class Part:
    """What one batch computes of one prompt: `new` tokens after the first `before`."""

    job: Job
    new: int
    before: int


class PrefillQueue:
    """A batch has at most `chunk` tokens: a longer prompt goes on in the next, before any other begins."""

    def __init__(self, pool: Pool, page_size: int, chunk: int, held_tokens: Callable[[Job], int]) -> None:
        """`held_tokens`: KV that a job takes up on this server while it is there."""
        self._pool = pool
        self._page = page_size
        self._chunk = chunk
        self._held_tokens = held_tokens
        self._waiting: deque[Job] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, job: Job) -> None:
        self._waiting.append(job)

    def next_batch(self, now: float) -> list[Part]:
        """As many prompts as fit; none if nothing waits or the pool has no room for the first one yet."""
        parts: list[Part] = []
        budget = self._chunk
        while self._waiting and budget > 0:
            job = self._waiting[0]
            if job.lease is None and not self._begin(job, now):
                break
            new = min(job.read_tokens - job.done_tokens, budget)
            parts.append(Part(job, new, job.done_tokens))
            budget -= new
            if job.done_tokens + new < job.read_tokens:
                break
            self._waiting.popleft()
        return parts

    def _begin(self, job: Job, now: float) -> bool:
        """At least one token of a prompt is always computed, whatever is cached."""
        job.lease = self._pool.take(
            job.context, (job.read_tokens - 1) // self._page, -(-self._held_tokens(job) // self._page)
        )
        if job.lease is None:
            return False
        job.hit_tokens = job.done_tokens = job.lease.hit * self._page
        job.spans["prefill_queue"] = (job.spans["router_queue"][1], now)
        return True

    def computed(self, parts: list[Part], now: float) -> list[Job]:
        """The batch is done: the jobs whose prompts are complete, which are in the cache now."""
        complete = []
        for part in parts:
            job = part.job
            job.done_tokens += part.new
            if job.done_tokens < job.read_tokens:
                continue
            assert job.lease is not None
            job.last_chunk = part.new if part.before > job.hit_tokens else job.read_tokens
            self._pool.store(job.lease, job.read_tokens // self._page)
            job.spans["prefill"] = (job.spans["prefill_queue"][1], now)
            complete.append(job)
        return complete
