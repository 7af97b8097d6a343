"""Finding out which workers can serve: a worker is ready once a real request of one token went through it.

A probe takes the way that requests take (both legs, the KV transfer between them, the check of the split), because
SGLang's own health checks pass on servers that cannot pair. A decode server has then to sample and to follow a grammar,
too: its first request of each kind may compile kernels, for longer than a ready server may be silent. Ready workers are
only asked for a TCP connection now and then; requests in flight notice sooner.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

from psserve.contracts.router_config import RouterConfig
from psserve.errors import RequestError
from psserve.router.admission.admission import Admission
from psserve.router.body.checks import Body
from psserve.router.body.fields import ROUTE_PATHS
from psserve.router.pairs.dispatcher import Dispatcher
from psserve.router.pairs.pair import ADAPTER_FIELD, Pair, Sequence, check_answer
from psserve.router.workers.failures import LegFailure
from psserve.router.workers.tasks import Background
from psserve.router.workers.upstream import Upstream
from psserve.router.workers.workers import Worker, WorkerTable

TICK_S = 0.25
READY_CHECK_S = 1.0  # how often a ready worker is asked for a connection
QUIET_S = 5.0  # without a sign of work from a worker that has requests, before it is asked for one
QUESTION = "/server_info"
QUEUED_PER_TIMEOUT = 20  # requests ahead of a probe for which it may take as long again as on an idle worker
PROBE_TOKENS = 4  # random, so that no cache can answer for the transfer
FURTHER: tuple[Body, ...] = ({"temperature": 0.8, "top_p": 0.9, "top_k": 20, "min_p": 0.05}, {"regex": "[a-z]+"})
"""What a decode server is asked beside a greedy request, before it is ready. It may say no, but must say something."""

log = logging.getLogger("psserve.router")


class Prober:
    """Keeps the workers' states true. `run` never ends by itself."""

    def __init__(
        self,
        config: RouterConfig,
        table: WorkerTable,
        upstream: Upstream,
        dispatcher: Dispatcher,
        admission: Admission,
    ) -> None:
        self._config = config
        self._table = table
        self._upstream = upstream
        self._dispatcher = dispatcher
        self._admission = admission
        self._background = Background()
        self._busy: set[Worker] = set()
        self._checked: WeakKeyDictionary[Worker, float] = WeakKeyDictionary()  # workers come and go

    async def run(self) -> None:
        """Look at every worker four times a second."""
        while True:
            try:
                self.tick()
            except Exception:  # a bug of ours: without probes no lost worker would ever come back
                log.exception("a round of health checks failed by a bug")
            await asyncio.sleep(TICK_S)

    async def close(self) -> None:
        await self._background.close(grace_s=0)

    def tick(self) -> None:
        """Start what is due: a probe for each worker that is not ready, a check for each that is."""
        self._admission.pump()
        for worker in self._table.workers:
            if worker in self._busy:
                continue
            if worker.is_ready or worker.leaves:
                if monotonic() - self._checked.get(worker, 0.0) >= READY_CHECK_S:
                    self._start(worker, self._check(worker))
            elif not worker.breaker.is_resting and (partner := self._partner(worker)):
                self._start(worker, self._probe(worker, partner))

    def _start(self, worker: Worker, work: Coroutine[Any, Any, None]) -> None:
        self._busy.add(worker)

        async def run() -> None:
            try:
                await work
            finally:
                self._busy.discard(worker)

        self._background.start(run())

    async def _check(self, worker: Worker) -> None:
        self._checked[worker] = monotonic()
        if not await self._upstream.accepts(worker):
            if worker.is_ready or worker.leaves:
                worker.leaves = False  # whoever comes at its address is its successor
                self._table.mark_down(worker, "does not accept connections")
        elif worker.is_suspect and (partner := self._partner(worker)):
            await self._clear(worker, partner)
        elif worker.running and monotonic() - worker.last_sign >= QUIET_S:
            await self._question(worker)

    async def _question(self, worker: Worker) -> None:
        """A worker that has requests is quiet: it may be busy with long answers, or frozen behind its HTTP process.

        Its scheduler answers this question between two steps of computing, however many requests are queued.
        """
        asked = monotonic()
        if await self._upstream.answers(worker, QUESTION, self._config.breaker.stall_secs):
            worker.last_sign = monotonic()
        elif worker.is_ready and worker.last_sign < asked:
            self._table.doubt(worker, "has requests, and answers neither them nor any question")

    def _partner(self, worker: Worker) -> Worker | None:
        """The partner to probe `worker` with: a ready worker of the other role, else any."""
        others = self._table.decodes if worker.config.role == "prefill" else self._table.prefills
        ready = [other for other in others if other.is_ready]
        return secrets.choice(ready or others) if others else None

    async def _probe(self, worker: Worker, partner: Worker) -> None:
        """One request through the two; failure is noted on `worker`."""
        for one in (worker, partner):
            if not await self._upstream.accepts(one):
                worker.error = f"{one.name} does not accept connections"
                return
        failure = await self._try(worker, partner)
        if isinstance(failure, LegFailure):
            worker.error = f"{failure.worker.name}: {failure.detail[:200]}"
        elif failure is not None:
            worker.error = str(failure)

    async def _clear(self, worker: Worker, partner: Worker) -> None:
        """A body was too much for a ready `worker`: the body's fault, unless it cannot handle ours either."""
        worker.is_suspect = False
        failure = await self._try(worker, partner)
        if isinstance(failure, LegFailure) and failure.worker is worker and failure.reason == "unhandled":
            self._table.doubt(worker, f"{worker.name}: {failure.detail[:200]}")

    async def _try(self, worker: Worker, partner: Worker) -> RequestError | None:
        """What became of one request through the two; success makes both ready."""
        prefill, decode = (worker, partner) if worker.config.role == "prefill" else (partner, worker)
        try:
            await self._ask(prefill, decode, {})
            prefill.mark_ready()
            if not decode.is_ready:
                for fields in (*FURTHER, *self._adapter_fields(decode)):
                    await self._ask_further(prefill, decode, fields)
        except RequestError as error:
            return error
        decode.mark_ready()
        return None

    def _adapter_fields(self, decode: Worker) -> list[Body]:
        """One adapter of a worker that has several: what computes with it is compiled then, and it serves for all."""
        adapters = self._table.adapters_of(decode)
        return [{ADAPTER_FIELD: adapter} for adapter in adapters[:1]]

    async def _ask_further(self, prefill: Worker, decode: Worker, fields: Body) -> None:
        """Ask what the decode server may refuse, or have no answer for: it has done its compiling then."""
        try:
            await self._ask(prefill, decode, fields)
        except LegFailure as failure:
            if failure.reason not in ("refused", "unhandled"):
                raise

    async def _ask(self, prefill: Worker, decode: Worker, fields: Body) -> None:
        """One request through the two, with these fields for the decode server. Raises RequestError."""
        pair = Pair(prefill, decode, fresh=True)
        async with self._dispatcher.open_on(pair, self._sequence(fields), self._patience(prefill, decode)) as legs:
            check_answer(legs, await legs.read())

    def _patience(self, *pair: Worker) -> float:
        """Seconds for a probe: it queues behind the requests that its workers have."""
        queued = max(worker.running for worker in pair)
        return min(self._config.upstream_timeout_s * (1 + queued / QUEUED_PER_TIMEOUT), self._config.request_timeout_s)

    def _sequence(self, fields: Body) -> Sequence:
        body = {
            "model": self._config.base.name,
            "prompt": [secrets.randbelow(self._config.base.vocab_size) for _ in range(PROBE_TOKENS)],
            "max_tokens": 1,
            "temperature": 0,
            "stream": False,
        }
        return Sequence(ROUTE_PATHS["completions"], prefill=body, decode={**body, **fields})
