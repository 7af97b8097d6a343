"""One simulated SGLang server and the jobs it works on: prefill batches first, decode steps in between, as SGLang does.

Prompts wait in a queue, first come first served. Answers are generated as a running batch, many steps at a time, for
nothing happens between two changes of the batch: the length of a step grows by the same amount with each step, so any
number of them has a closed form, and a run of thousands of tokens is one event instead of thousands.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import simpy

from psserve.bench.record import RequestRecord
from psserve.bench.simulator.costs import Costs, DecodeCosts
from psserve.bench.simulator.device import Device, Work
from psserve.bench.simulator.pool import Lease, Pool, Prefix


@dataclass(eq=False, slots=True)
class Job:
    """What is asked, and what became of it so far. Times are seconds of the simulation."""

    number: int
    """Of its session, from 1 in order of start."""
    session: str
    step: int
    call: int
    module: str
    context: Prefix
    blocks: tuple[int, ...]
    """Names of the prompt's blocks, for policies."""
    prompt_tokens: int
    read_tokens: int
    """Of the prompt, what the prefill side computes or finds in its cache."""
    output_tokens: int
    joins: bool
    """Whether the answer becomes part of the session's context."""
    due_s: float
    sent_s: float
    lease: Lease | None = None
    """On the server that computes the prompt."""
    done_tokens: int = 0
    """Of those to read: found or computed."""
    hit_tokens: int = 0
    last_chunk: int = 0
    """Tokens of the latest prefill batch that were this prompt's; all of them, if it took one batch."""
    decode_lease: Lease | None = None
    first_s: float | None = None
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)

    def record(self, done_s: float, *, warmup: bool) -> RequestRecord:
        """What a load generator would have written."""
        return RequestRecord(
            session=self.session,
            step=self.step,
            call=self.call,
            module=self.module,
            due_s=self.due_s,
            sent_s=self.sent_s,
            first_s=self.first_s,
            done_s=done_s,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.hit_tokens,
            output_tokens=self.output_tokens,
            asked_tokens=self.output_tokens,
            warmup=warmup,
            spans=self.spans,
        )


Told = Callable[[Job], None]


class SimulatedServer:
    """`prefilled` is called for a prompt that is computed, `answered` for an answer that is complete."""

    def __init__(
        self,
        clock: simpy.Environment,
        device: Device,
        costs: Costs,
        pool: Pool,
        queue: PrefillQueue,
        prefilled: Told,
        answered: Told,
    ) -> None:
        self.pool = pool
        self._clock = clock
        self._device = device
        self._costs = costs
        self._queue = queue
        self._prefilled = prefilled
        self._answered = answered
        self._batch = DecodeBatch(costs.decode)
        self._joining: list[tuple[Job, int]] = []
        self._work: Work | None = None
        self._steps = 0
        """Of the decode steps that the server is at; 0 while it prefills."""

    def compute(self, job: Job) -> None:
        """Compute the job's prompt."""
        self._queue.add(job)
        self._changed()

    def generate(self, job: Job, steps: int) -> None:
        """Generate the job's answer in `steps` steps (at least one), from the next step on."""
        self._joining.append((job, steps))
        self._changed()

    def room(self) -> None:
        """There may be more room in the pool now."""
        if self._work is None:
            self._next()

    def _changed(self) -> None:
        """Begin, if idle; if the server is at a run of decode steps, let that end with the step it is at."""
        if self._work is None:
            self._next()
        elif self._steps > 1:
            steps = self._batch.steps_in(self._device.progress(self._work))
            if steps < self._steps:
                self._steps = steps
                self._device.trim(self._work, self._batch.seconds(steps))

    def _next(self) -> None:
        now = self._clock.now
        for job, steps in self._joining:
            self._batch.add(job, steps)
            job.spans["decode_queue"] = (job.spans.get("transfer", job.spans["prefill"])[1], now)
        self._joining.clear()
        if parts := self._queue.next_batch(now):
            seconds = self._costs.prefill.seconds((part.new, part.before) for part in parts)
            self._work = self._device.run(seconds, lambda: self._computed(parts))
        elif self._batch:
            self._steps = self._batch.until_change()
            self._work = self._device.run(self._batch.seconds(self._steps), self._stepped)
        else:
            self._work = None

    def _computed(self, parts: list[PromptPart]) -> None:
        for job in self._queue.computed(parts, self._clock.now):
            self._prefilled(job)
        self._next()

    def _stepped(self) -> None:
        steps, self._steps = self._steps, 0
        for job in self._batch.advance(steps, self._clock.now):
            job.spans["decode"] = (job.spans["decode_queue"][1], self._clock.now)
            self._answered(job)
        self._next()


@dataclass(frozen=True, slots=True)
class PromptPart:
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

    def next_batch(self, now: float) -> list[PromptPart]:
        """As many prompts as fit; none if nothing waits or the pool has no room for the first one yet."""
        parts: list[PromptPart] = []
        budget = self._chunk
        while self._waiting and budget > 0:
            job = self._waiting[0]
            if job.lease is None and not self._begin(job, now):
                break
            new = min(job.read_tokens - job.done_tokens, budget)
            parts.append(PromptPart(job, new, job.done_tokens))
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

    def computed(self, parts: list[PromptPart], now: float) -> list[Job]:
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


ROUNDING = 1e-9
"""Of a step: a boundary that was just reached counts as reached."""


class DecodeBatch:
    """Answers that are generated together, a token each a step."""

    def __init__(self, costs: DecodeCosts) -> None:
        self._costs = costs
        self._step = 0
        self._ends: list[tuple[int, int, Job]] = []  # heap by the step after which an answer is complete
        self._order = 0
        self._context = 0
        self._fresh: list[Job] = []

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, job: Job, steps: int) -> None:
        """`job` runs for `steps` steps (at least one) from here on."""
        self._order += 1
        heapq.heappush(self._ends, (self._step + steps, self._order, job))
        self._context += job.prompt_tokens + job.output_tokens - steps
        if job.first_s is None:
            self._fresh.append(job)

    def until_change(self) -> int:
        """Steps until an answer is complete, or one that has just joined has its first token."""
        return 1 if self._fresh else self._ends[0][0] - self._step

    def seconds(self, steps: int) -> float:
        """What the next `steps` steps take."""
        return self._costs.seconds(steps, self._context, len(self._ends))

    def steps_in(self, seconds: float) -> int:
        """How many steps have begun `seconds` from here: the last of them is still to be finished. At least one."""
        first = self.seconds(1)
        growth = self._costs.context_s * len(self._ends)
        if growth * seconds <= ROUNDING * first * first:
            steps = seconds / first
        else:
            linear = first - growth / 2
            steps = (math.sqrt(linear * linear + 2 * growth * seconds) - linear) / growth
        return max(1, math.ceil(steps - ROUNDING))

    def advance(self, steps: int, now: float) -> list[Job]:
        """`steps` steps, of until_change() at most, are done: the answers that are complete with them."""
        self._step += steps
        self._context += steps * len(self._ends)
        for job in self._fresh:
            job.first_s = now
        self._fresh.clear()
        complete = []
        while self._ends and self._ends[0][0] == self._step:
            job = heapq.heappop(self._ends)[2]
            self._context -= job.prompt_tokens + job.output_tokens
            complete.append(job)
        return complete
