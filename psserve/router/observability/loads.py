"""What workers say of their queues and KV pools: asked only when somebody looks, and at most once a second."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from psserve.contracts.loads import LOADS_PATH, ServerLoad, parse_server_load
from psserve.router.workers.tasks import Fresh
from psserve.router.workers.upstream import Upstream
from psserve.router.workers.workers import Worker, WorkerTable

FRESH_S = 0.9
ANSWER_S = 0.5
"""A worker that is silent for so long is shown without."""


class Loads:
    """The last answers of all workers."""

    def __init__(self, table: WorkerTable, upstream: Upstream) -> None:
        self._table = table
        self._upstream = upstream
        self._loads = Fresh(self._ask_all, FRESH_S)

    async def read(self) -> Mapping[str, ServerLoad]:
        """Worker -> load, not older than a second. Workers that are not ready, or did not answer, are not in it."""
        return await self._loads.read()

    async def _ask_all(self) -> Mapping[str, ServerLoad]:
        workers = [worker for worker in self._table.workers if worker.is_ready]
        answers = await asyncio.gather(*(self._ask(worker) for worker in workers))
        return {worker.name: load for worker, load in zip(workers, answers, strict=True) if load is not None}

    async def _ask(self, worker: Worker) -> ServerLoad | None:
        body = await self._upstream.get(worker, LOADS_PATH, ANSWER_S)
        try:
            return None if body is None else parse_server_load(body)
        except ValueError:  # another form than SGLang's: nothing to show
            return None
