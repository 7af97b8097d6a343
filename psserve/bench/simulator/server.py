"""One simulated SGLang server: prefill batches come first, decode steps in between, as SGLang schedules them."""

from __future__ import annotations

from collections.abc import Callable

import simpy

from psserve.bench.simulator.costs import Costs
from psserve.bench.simulator.decode import DecodeBatch
from psserve.bench.simulator.device import Device, Work
from psserve.bench.simulator.job import Job
from psserve.bench.simulator.pool import Pool
from psserve.bench.simulator.prefill import Part, PrefillQueue

Told = Callable[[Job], None]


class Server:
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

    def _computed(self, parts: list[Part]) -> None:
        for job in self._queue.computed(parts, self._clock.now):
            self._prefilled(job)
        self._next()

    def _stepped(self) -> None:
        steps, self._steps = self._steps, 0
        for job in self._batch.advance(steps, self._clock.now):
            job.spans["decode"] = (job.spans["decode_queue"][1], self._clock.now)
            self._answered(job)
        self._next()
