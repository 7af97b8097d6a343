"""A running batch of answers, many steps at a time: nothing happens between two changes of the batch.

The length of a step grows by the same amount with each step, so any number of them has a closed form, and a run of
thousands of tokens is one event instead of thousands.
"""

from __future__ import annotations

import heapq
import math

from psserve.bench.simulator.costs import DecodeCosts
from psserve.bench.simulator.job import Job

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
