"""Prefill and decode on one server: a server a module, or one for all, with LoRA adapters or one model."""

from __future__ import annotations

from collections.abc import Callable

import simpy

from psserve.bench.simulator.group import Group, dealt
from psserve.bench.simulator.job import Job
from psserve.bench.simulator.server import Server
from psserve.bench.simulator.setup import Setup
from psserve.bench.simulator.system import System
from psserve.router.policies import Choice


class Unified(System):
    """One server answers a request from beginning to end. An adapter is taken to cost nothing."""

    def __init__(
        self, clock: simpy.Environment, setup: Setup, block_tokens: int, answered: Callable[[Job], None]
    ) -> None:
        super().__init__(clock, setup, block_tokens, answered)
        names = self._add_servers("server", setup.servers, setup.kv_tokens)
        modules = setup.modules
        served = dealt(names, modules) if setup.system == "colocated" else dict.fromkeys(modules, names)
        groups = {tuple(each): self._group(each, setup.prefill_policy, setup.kv_tokens) for each in served.values()}
        self._groups: dict[str, Group] = {module: groups[tuple(each)] for module, each in served.items()}
        self._placed: dict[Job, tuple[Server, Choice | None]] = {}

    def _held_tokens(self, job: Job) -> int:
        return job.prompt_tokens + self._answer_tokens(job)

    def _arrived(self, job: Job) -> None:
        server, choice = self._groups[job.module].pick(job)
        self._placed[job] = server, choice
        server.compute(job)

    def _prefilled(self, job: Job) -> None:
        server, choice = self._placed[job]
        self._groups[job.module].finish(choice)
        job.first_s = self._clock.now
        if job.output_tokens > 1:
            server.generate(job, job.output_tokens - 1)
        else:
            self._generated(job)

    def _generated(self, job: Job) -> None:
        """Of an answer, the last token has no KV; an answer that does not join the context is met by no prompt."""
        server, _ = self._placed.pop(job)
        assert job.lease is not None
        kept = job.prompt_tokens + (job.output_tokens - 1) * job.joins
        server.pool.store(job.lease, kept // self._setup.page_size)
        server.pool.release(job.lease)
        server.room()
        self._end(job)
