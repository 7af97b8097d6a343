"""Admission: every sequence gets its workers here, at once while there is capacity, else in its module's turn.

    enter --capacity, nobody of the module before it----------------------------> Grant
      |                                                                            ^
      +--queue full: 429   +--> waits in its module's queue --capacity, its turn---+
      +--------------------+        |--wait_secs: 408   |--no worker any more: 503   |--deadline, client left

There is capacity when one of the module's decode workers can hold the sequence, and the window of a prefill worker is
not full. With one KV pool a decode worker holds the answer alone, and a prefill worker the prompt until that has ended.
Whatever waits, waits here and not in the workers' own queues, which know neither modules nor priorities.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from time import monotonic
from weakref import WeakKeyDictionary

from psserve.contracts.limits import QueueLimits
from psserve.contracts.router_config import ModuleConfig
from psserve.errors import RequestError
from psserve.router.admission.capacity import Hold, KvBudget, OutputLengths, PrefillWindow
from psserve.router.admission.fair import FairQueue
from psserve.router.body.checks import Body
from psserve.router.observability.demand import Demand
from psserve.router.observability.metrics import LoadMetrics
from psserve.router.placement.routing import Place, Routing
from psserve.router.policies import Prompt, Request
from psserve.router.workers.failures import RETRY_AFTER_S
from psserve.router.workers.workers import Worker

REQUEST_COST = 16
"""What a sequence costs beside the tokens of its prompt, in tokens: none is free."""


@dataclass(eq=False)
class Grant:
    """A pair of workers, and capacity on both. End it once the sequence has ended, in whatever way."""

    place: Place
    module: str
    window: PrefillWindow
    holds: tuple[Hold, ...]
    freed: Callable[[], None]
    """Called whenever there may be capacity for others."""
    _in_window: bool = True
    _ended: bool = False

    def __post_init__(self) -> None:
        self.window.add(self.module, self.place.prefill_tokens)
        for hold in self.holds:
            hold.begin()

    @property
    def prefill(self) -> Worker:
        return self.place.prefill

    @property
    def decode(self) -> Worker:
        return self.place.decode

    def prefilled(self, body: Body, prompt_tokens: int) -> None:
        """The prefill worker has read the prompt: `prompt_tokens` tokens for `body`."""
        self.place.prefilled(body, prompt_tokens)
        self._leave_window()
        self.freed()

    def shared_tokens(self, prompt_tokens: int, cached_tokens: int) -> int:
        """How many of the cached tokens that the prefill worker reported it had computed for other modules."""
        return self.place.shared_tokens(self.module, prompt_tokens, cached_tokens)

    def end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self.place.end()
        self._leave_window()
        for hold in self.holds:
            hold.end()
        self.freed()

    def _leave_window(self) -> None:
        if self._in_window:
            self._in_window = False
            self.window.remove(self.module, self.place.prefill_tokens)


@dataclass(eq=False)
class Ticket:
    """One attempt of a sequence to get workers."""

    module: ModuleConfig
    queue: str
    """The queue that it waits in: its module's, or that of the version on trial."""
    request: Request
    avoid: Collection[Worker] = ()
    """Workers that it should not get again while there are others."""
    granted: asyncio.Future[Grant] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Admission:
    """The admission of one router. Use it inside the event loop."""

    def __init__(
        self,
        routing: Routing,
        limits: QueueLimits,
        metrics: LoadMetrics,
        kv_tokens: int | None,
        one_pool_page: int | None = None,
    ) -> None:
        """`kv_tokens`: pool of a worker of which nothing else is known; None: no limit.

        `one_pool_page`: tokens of a page where decode workers read prompts in the prefill workers' pools; None: they
        have their own copies.
        """
        self._one_pool_page = one_pool_page
        self.outputs = OutputLengths()
        self._routing = routing
        self._limits = limits
        self._metrics = metrics
        self._kv_tokens = kv_tokens
        self._queue: FairQueue[Ticket] = FairQueue(limits.weights)
        self._windows: WeakKeyDictionary[Worker, PrefillWindow] = WeakKeyDictionary()
        self._budgets: WeakKeyDictionary[Worker, KvBudget] = WeakKeyDictionary()
        self._waiting_tokens: Counter[str] = Counter()
        self._waiting_prompts = 0  # in tokens
        metrics.demand.source = self.demand

    async def enter(
        self,
        module: ModuleConfig,
        request: Request,
        *,
        priority: int = 0,
        is_bounded: bool = True,
        avoid: Collection[Worker] = (),
    ) -> Grant:
        """Workers for a sequence, and capacity on them. Not `is_bounded`: it may wait though the queue is full.

        Raises RequestError: 408 queue_timeout, 429 queue_full, 503 module_unavailable.
        """
        arrived = monotonic()
        ticket = Ticket(module, self._routing.table.label(module), request, avoid)
        grant = None if self._queue.waiting(ticket.queue) else self._try(ticket)
        if grant is not None:
            self._queue.pay(ticket.queue, _cost(request))
        else:
            prefills, _ = self._routing.candidates(module)  # nobody waits for workers that are not there
            if is_bounded:
                self._check_bounds(ticket, len(prefills))
            grant = await self._wait(ticket, priority)
        self._metrics.wait.labels(module.name).observe(monotonic() - arrived)
        return grant

    @property
    def waiting(self) -> int:
        """Sequences that wait for their turn."""
        return len(self._queue)

    def demand(self) -> Demand:
        """What is asked of the servers now: what waits, and what runs."""
        held: Counter[str] = Counter()
        for worker, budget in self._budgets.items():
            if worker.config.module is not None:
                held[worker.config.module] += budget.tokens
        outstanding = sum(window.tokens for window in self._windows.values())
        return Demand(held + self._waiting_tokens, outstanding + self._waiting_prompts)

    def pump(self) -> None:
        """Let in whom there is capacity for. To be called whenever there may be more of it, or fewer workers."""
        while len(self._queue) and self._admit_next():
            pass

    def _admit_next(self) -> bool:
        """Take one out of the queue, with workers or an error; False if nobody can go."""
        for queue in self._queue.turns():
            entry = self._queue.head(queue)
            if entry.item.granted.cancelled():  # whoever waited has just left, and has yet to leave the queue
                self._queue.remove(queue, entry)
                return True
            try:
                grant = self._try(entry.item)
            except RequestError as error:
                self._metrics.rejected.labels(entry.item.module.name, "unavailable").inc()
                self._queue.remove(queue, entry)
                entry.item.granted.set_exception(error)
                return True
            if grant is not None:
                self._queue.take(queue)
                entry.item.granted.set_result(grant)
                return True
        return False

    def _try(self, ticket: Ticket) -> Grant | None:
        """A grant if there is capacity now. Raises RequestError (503) when workers are missing."""
        name, request = ticket.module.name, ticket.request
        prefills, decodes = self._routing.candidates(ticket.module)
        prefills = [one for one in _others(prefills, ticket.avoid) if self._prefill_takes(one, name, request)]
        if not prefills:
            return None
        copied = self._copied(request.prompt)
        decodes = [
            one
            for one in _others(decodes, ticket.avoid)
            if self._decode_takes(one, copied, self._answer(one, name, request))
        ]
        if not decodes:
            return None
        place = self._routing.place(request, prefills, decodes)
        answer = self._answer(place.decode, name, request)
        holds: tuple[Hold, ...] = (Hold(self._budget(place.decode), copied, answer),)
        if self._one_pool_page is not None:
            holds += (Hold(self._budget(place.prefill), request.prompt, 0),)
        return Grant(place, name, self._window(place.prefill), holds, self.pump)

    def _copied(self, prompt: Prompt) -> Prompt:
        """What a decode worker needs slots of its own for: with one pool, of the last page alone."""
        return prompt if self._one_pool_page is None else Prompt((), self._one_pool_page, self._one_pool_page)

    def _answer(self, worker: Worker, module: str, request: Request) -> int:
        """Tokens of the answer to reckon with on a decode worker."""
        return self.outputs.expected(module, request.most_output_tokens, self._budget(worker).pool)

    async def _wait(self, ticket: Ticket, priority: int) -> Grant:
        name = ticket.module.name
        entry = self._queue.push(ticket.queue, ticket, cost=_cost(ticket.request), priority=priority)
        servers, tokens = ticket.module.group or name, self._tokens(ticket)
        self._metrics.queued.labels(name).inc()
        self._waiting_tokens[servers] += tokens
        self._waiting_prompts += ticket.request.prompt.tokens
        try:
            async with asyncio.timeout(self._limits.wait_secs):
                return await ticket.granted
        except BaseException as error:
            self._give_up(ticket)
            self._queue.remove(ticket.queue, entry)
            self.pump()  # perhaps it was what kept others waiting
            if isinstance(error, TimeoutError):
                raise self._refusal(408, name, "timeout", "the request waited too long for its turn") from None
            raise
        finally:
            self._metrics.queued.labels(name).dec()
            self._waiting_tokens[servers] -= tokens
            self._waiting_prompts -= ticket.request.prompt.tokens

    def _tokens(self, ticket: Ticket) -> int:
        """KV that a sequence that waits will take up of a decode worker."""
        output = self.outputs.expected(ticket.module.name, ticket.request.most_output_tokens)
        return self._copied(ticket.request.prompt).tokens + output

    def _give_up(self, ticket: Ticket) -> None:
        """Whoever waited with `ticket` is gone, perhaps in the moment in which it was granted."""
        granted = ticket.granted
        if granted.done() and not granted.cancelled() and granted.exception() is None:
            granted.result().end()

    def _check_bounds(self, ticket: Ticket, prefills: int) -> None:
        """Whoever waits can go to any of the `prefills` that serve now, so each adds its share to one common bound."""
        is_full = self._queue.waiting(ticket.queue) >= self._limits.module_requests
        if is_full or len(self._queue) >= self._limits.prefill_requests * prefills:
            raise self._refusal(429, ticket.module.name, "full", "too many requests are waiting; retry in a moment")

    def _refusal(self, status: int, name: str, reason: str, message: str) -> RequestError:
        self._metrics.rejected.labels(name, reason).inc()
        return RequestError(status, message, type="rate_limit_error", code=f"queue_{reason}", retry_after=RETRY_AFTER_S)

    def _prefill_takes(self, worker: Worker, module: str, request: Request) -> bool:
        window = self._window(worker)
        if not window.takes(module) or (worker.breaker.state != "closed" and window.requests):
            return False
        return self._one_pool_page is None or self._budget(worker).takes(request.prompt, 0)

    def _decode_takes(self, worker: Worker, copied: Prompt, output_tokens: int) -> bool:
        budget = self._budget(worker)
        return budget.takes(copied, output_tokens) and (worker.breaker.state == "closed" or not budget.requests)

    def _window(self, worker: Worker) -> PrefillWindow:
        window = self._windows.get(worker)
        if window is None:
            window = self._windows[worker] = PrefillWindow(self._limits)
        return window

    def _budget(self, worker: Worker) -> KvBudget:
        budget = self._budgets.get(worker)
        if budget is None:
            known = worker.config
            most = known.max_running_requests if known.role == "decode" else None
            budget = self._budgets[worker] = KvBudget(known.kv_tokens or self._kv_tokens, most)
        return budget


def _others(workers: list[Worker], avoid: Collection[Worker]) -> Iterable[Worker]:
    """`workers` without those to avoid, unless that leaves none."""
    if not avoid:
        return workers
    return [worker for worker in workers if worker not in avoid] or workers


def _cost(request: Request) -> int:
    return request.prompt.tokens + REQUEST_COST
