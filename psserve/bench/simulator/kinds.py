"""The two kinds of systems: prefill and decode on different servers (psserve, and the paper's baseline), or on one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import simpy

from psserve.bench.simulator.device import after
from psserve.bench.simulator.server import Job, SimulatedServer
from psserve.bench.simulator.system import SHARED, Group, Setup, System, dealt
from psserve.router.policies import Choice
from psserve.rule import prefill_len


@dataclass(slots=True)
class _Way:
    """The servers of one job."""

    prefill: SimulatedServer
    prefill_choice: Choice | None
    decode: SimulatedServer
    decode_choice: Choice | None


@dataclass(slots=True)
class _Side:
    """What servers of a pair do beside computing: a prefill server sends, a decode server keeps jobs waiting."""

    sending_until_s: float = 0.0
    waiting: deque[Job] = field(default_factory=deque)
    """For room, in order."""


class Paired(System):
    """A prompt is computed once its decode server has room for it, as SGLang's handshake has it."""

    def __init__(
        self, clock: simpy.Environment, setup: Setup, block_tokens: int, answered: Callable[[Job], None]
    ) -> None:
        super().__init__(clock, setup, block_tokens, answered)
        self._shared = setup.system in SHARED
        self._one_pool = setup.system == "one-pool"
        decode_kv_tokens = setup.decode_kv_tokens or setup.kv_tokens
        prefill = self._add_servers("prefill", setup.prefill, setup.kv_tokens)
        decode = self._add_servers("decode", setup.decode, decode_kv_tokens)
        computing = dict.fromkeys(setup.modules, prefill) if self._shared else dealt(prefill, setup.modules)
        groups = {
            tuple(names): self._group(names, setup.prefill_policy, setup.kv_tokens) for names in computing.values()
        }
        self._computing: dict[str, Group] = {module: groups[tuple(names)] for module, names in computing.items()}
        self._generating: dict[str, Group] = {
            module: self._group(names, setup.decode_policy, decode_kv_tokens)
            for module, names in dealt(decode, setup.modules).items()
        }
        self._sides: dict[SimulatedServer, _Side] = {server: _Side() for server in self.servers.values()}
        self._ways: dict[Job, _Way] = {}

    def _held_tokens(self, job: Job) -> int:
        return job.read_tokens

    def _arrived(self, job: Job) -> None:
        if self._shared:
            job.read_tokens = prefill_len(job.prompt_tokens)
        way = _Way(*self._computing[job.module].pick(job), *self._generating[job.module].pick(job))
        self._ways[job] = way
        self._sides[way.decode].waiting.append(job)
        self._admit(way.decode)

    def _admit(self, decode: SimulatedServer) -> None:
        """Give room on a decode server to as many as there is room for, in order."""
        waiting, page = self._sides[decode].waiting, self._setup.page_size
        while waiting:
            job = waiting[0]
            read = self._read_in_place(job)
            needed = -(-(job.prompt_tokens - read + self._answer_tokens(job)) // page)
            cached = 0 if self._one_pool else (job.prompt_tokens - 1) // page
            job.decode_lease = decode.pool.take(job.context, cached, needed)
            if job.decode_lease is None:
                return
            waiting.popleft()
            self._ways[job].prefill.compute(job)

    def _prefilled(self, job: Job) -> None:
        """Of a prompt of several batches, all but the last one's KV was sent while the next was computed."""
        way, costs = self._ways[job], self._setup.costs
        assert job.decode_lease is not None
        found = job.decode_lease.hit * self._setup.page_size + self._read_in_place(job)
        lacking = max(0, job.read_tokens - found)
        self.counters.decode_cached_tokens += found
        self.counters.kv_bytes += lacking * costs.kv_bytes
        seconds = costs.transfer.seconds(min(lacking, job.last_chunk) * costs.kv_bytes)
        now, side = self._clock.now, self._sides[way.prefill]
        side.sending_until_s = max(now, side.sending_until_s) + seconds
        after(self._clock, side.sending_until_s - now, lambda: self._sent(job, now))
        self._computing[job.module].finish(job, way.prefill_choice)

    def _sent(self, job: Job, began_s: float) -> None:
        """Stock SGLang has sampled the first token at the prefill server; here the module makes it."""
        way, now = self._ways[job], self._clock.now
        job.spans["transfer"] = (began_s, now)
        if not self._one_pool:
            self._free_prompt(job)
        if not self._shared:
            job.first_s = now
        if steps := job.output_tokens - (not self._shared):
            way.decode.generate(job, steps)
        else:
            self._generated(job)

    def _generated(self, job: Job) -> None:
        """Of an answer, the last token has no KV; what a module wrote over the base's KV is never kept."""
        way, lease = self._ways[job], job.decode_lease
        assert lease is not None
        if self._one_pool:
            self._free_prompt(job)
        del self._ways[job]
        whole = job.prompt_tokens + (job.output_tokens - 1) * job.joins
        kept = job.prompt_tokens - 1 if self._shared and not self._setup.answers_by_base else whole
        way.decode.pool.store(lease, 0 if self._one_pool else kept // self._setup.page_size)
        way.decode.pool.release(lease)
        if self._setup.answers_by_base and job.joins:
            self._send_back(job, way.prefill, whole)
        self._generating[job.module].finish(job, way.decode_choice)
        self._admit(way.decode)
        self._end(job)

    def _send_back(self, job: Job, prefill: SimulatedServer, tokens: int) -> None:
        """The prefill server gets the base's KV of the answer too, if there is room for it.

        It travels while the answer is generated, so that none of it is waited for.
        """
        pages = tokens // self._setup.page_size
        lease = prefill.pool.take(job.context, pages, pages)
        if lease is None:
            return
        self.counters.kv_bytes += (tokens - job.read_tokens) * self._setup.costs.kv_bytes
        prefill.pool.store(lease, pages)
        prefill.pool.release(lease)

    def _read_in_place(self, job: Job) -> int:
        """Tokens of the prompt that its decode server reads in the prefill server's pool: whole pages."""
        page = self._setup.page_size
        return job.read_tokens // page * page if self._one_pool else 0

    def _free_prompt(self, job: Job) -> None:
        """Nobody reads the prompt's KV on the prefill server any more."""
        prefill = self._ways[job].prefill
        assert job.lease is not None
        prefill.pool.release(job.lease)
        prefill.room()


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
        self._placed: dict[Job, tuple[SimulatedServer, Choice | None]] = {}

    def _held_tokens(self, job: Job) -> int:
        return job.prompt_tokens + self._answer_tokens(job)

    def _arrived(self, job: Job) -> None:
        server, choice = self._groups[job.module].pick(job)
        self._placed[job] = server, choice
        server.compute(job)

    def _prefilled(self, job: Job) -> None:
        server, choice = self._placed[job]
        self._groups[job.module].finish(job, choice)
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
