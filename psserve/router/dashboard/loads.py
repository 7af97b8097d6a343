"""What workers say of their queues and KV pools: asked only when somebody looks, and at most once a second."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic

from psserve.loads import LOADS_PATH, Load, parse_load
from psserve.router.upstream import Upstream
from psserve.router.workers import Worker, WorkerTable

FRESH_S = 0.9
ANSWER_S = 0.5
"""A worker that is silent for so long is shown without."""


class Loads:
    """The last answers of all workers."""

    def __init__(self, table: WorkerTable, upstream: Upstream) -> None:
        self._table = table
        self._upstream = upstream
        self._asking = asyncio.Lock()
        self._asked = float("-inf")
        self._known: dict[str, Load] = {}

    async def read(self) -> Mapping[str, Load]:
        """Worker -> load, not older than a second. Workers that are not ready, or did not answer, are not in it."""
        async with self._asking:
            if monotonic() - self._asked >= FRESH_S:
                workers = [worker for worker in self._table.workers if worker.is_ready]
                answers = await asyncio.gather(*(self._ask(worker) for worker in workers))
                pairs = zip(workers, answers, strict=True)
                self._known = {worker.name: load for worker, load in pairs if load is not None}
                self._asked = monotonic()
        return self._known

    async def _ask(self, worker: Worker) -> Load | None:
        body = await self._upstream.get(worker, LOADS_PATH, ANSWER_S)
        try:
            return None if body is None else parse_load(body)
        except ValueError:  # another form than SGLang's: nothing to show
            return None
