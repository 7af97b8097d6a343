"""Task routing of one router: a classifier that follows the modules, the sessions, and a choice for each request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic

from psserve.contracts.router_config import RouterConfig, TaskRoutingConfig
from psserve.errors import RequestError
from psserve.router.body.checks import Body
from psserve.router.body.headers import session_of
from psserve.router.task_routing.choice import ModuleChoice, Sessions, choose_module, task_request, task_unclear
from psserve.router.task_routing.classifier import (
    AskBase,
    Decision,
    TaskClassifier,
    TaskModule,
    TaskRequest,
    find_classifier,
)
from psserve.router.workers.workers import WorkerTable

AUTO = "auto"
"""The model's name that asks for task routing. No module can be called that."""

log = logging.getLogger("psserve.router")


class TaskRouter:
    """Create it inside the event loop; `close` it at the end.

    Raises UsageError: there is no such classifier.
    """

    def __init__(
        self,
        config: TaskRoutingConfig,
        table: WorkerTable,
        decided: Callable[[ModuleChoice | None, float], None],
        ask: AskBase,
    ) -> None:
        """`decided` is told each choice (None: the request was refused) and the seconds that it took."""
        self._config = config
        self._table = table
        self._decided = decided
        self._ask = ask
        self._make_classifier = find_classifier(config.classifier)
        self._sessions = Sessions()
        self._modules: tuple[TaskModule, ...] = ()
        self._classifier: TaskClassifier | None = None
        self._learning: asyncio.Task[None] | None = None

    def learn(self, modules: Sequence[TaskModule]) -> None:
        """Make a classifier for `modules` in the background; until it is there, the present one goes on."""
        self._modules = tuple(modules)
        if self._learning is not None:
            self._learning.cancel()
        self._learning = asyncio.get_running_loop().create_task(self._learn())

    def relearn(self, modules: Sequence[TaskModule]) -> None:
        """The same if anything about the modules has changed."""
        if tuple(modules) != self._modules:
            self.learn(modules)

    async def choose(
        self, body: Body, headers: Mapping[str, str], client: str, may_use: Callable[[str], bool]
    ) -> ModuleChoice:
        """The module for `body`, a checked body of either endpoint, among those that its `client` `may_use`.

        `client`: the name of its key. Each client has sessions of its own, whatever it calls them.

        Raises RequestError: 400 task_unclear, or 503 when there is no classifier, or what the classifier raises.
        """
        started = monotonic()
        given = session_of(headers, body)
        session = None if given is None else f"{client}/{given}"  # there is no slash in a key's name

        def served(name: str | None) -> str | None:
            name = self._served_name(name)
            return name if name is not None and may_use(name) else None

        decision = await self._decide(task_request(body))
        decision = Decision({name: score for name, score in decision.scores.items() if served(name)})
        own, default = served(self._sessions.get(session)), served(self._config.default_module)
        choice = choose_module(decision, self._config.threshold, own, default)
        self._decided(choice, monotonic() - started)
        if choice is None:
            raise task_unclear(module.name for module in self._modules if may_use(module.name))
        if choice.outcome != "default":
            self._sessions.put(session, choice.module)
        return choice

    async def close(self) -> None:
        if self._learning is not None:
            self._learning.cancel()
            with suppress(asyncio.CancelledError):
                await self._learning

    async def _learn(self) -> None:
        started = monotonic()
        try:
            if len(self._modules) < 2:
                self._classifier = _NoChoice(self._modules)
            else:
                self._classifier = await self._make_classifier(self._modules, self._ask)
        except Exception:  # a plugin may raise anything: requests for `auto` are told, all others go on
            log.exception("task classifier %s could not be made", self._config.classifier)
        else:
            took = monotonic() - started
            log.info("task classifier=%s modules=%d seconds=%.2f", self._config.classifier, len(self._modules), took)

    async def _decide(self, request: TaskRequest) -> Decision:
        if self._classifier is None and (self._learning is None or self._learning.done()):
            self.learn(self._modules)  # the last attempt failed
        while self._classifier is None:
            learning = self._learning
            assert learning is not None, "learn() was called"
            await asyncio.wait({learning})
            if self._classifier is None and learning is self._learning:
                raise _unavailable()
        return await self._classifier.classify(request)

    def _served_name(self, name: str | None) -> str | None:
        """The module of that name, unless it went away since the classifier was made."""
        module = None if name is None else self._table.module(name)
        return None if module is None else module.name


class _NoChoice:
    """The classifier of a single module, or of none."""

    def __init__(self, modules: Sequence[TaskModule]) -> None:
        self._decision = Decision({module.name: 1.0 for module in modules})

    async def classify(self, request: TaskRequest) -> Decision:
        return self._decision


def task_modules(config: RouterConfig) -> list[TaskModule]:
    """The modules that `auto` chooses from: all but the base, which has no task."""
    return [
        TaskModule(module.name, module.aliases, module.task, module.examples)
        for module in config.modules
        if module.name != config.base.name
    ]


def _unavailable() -> RequestError:
    return RequestError(
        503,
        "modules cannot be chosen by task now: name one, or retry in a moment",
        type="service_unavailable_error",
        param="model",
        code="task_routing_unavailable",
        retry_after=5,
    )
