"""The parts of one running router, built once and passed to whoever needs them."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field

from aiohttp import web

from psserve.contracts.router_config import CHANGEABLE, RouterConfig
from psserve.errors import UsageError
from psserve.router.access.clients import Clients
from psserve.router.admission.admission import Admission
from psserve.router.answers.answer import BaseModel
from psserve.router.answers.given import GivenAnswers
from psserve.router.answers.roles import Roles
from psserve.router.answers.shadow import Shadows
from psserve.router.observability.activity import Activity
from psserve.router.observability.engine_metrics import EngineMetrics, Loads
from psserve.router.observability.metrics import Metrics
from psserve.router.observability.tracing import Tracing
from psserve.router.pairs.dispatcher import Dispatcher
from psserve.router.pairs.health import Prober
from psserve.router.placement.routing import Routing
from psserve.router.placement.text_length import TextLengths
from psserve.router.task_routing.routing import TaskRouter, task_modules
from psserve.router.workers.upstream import Upstream
from psserve.router.workers.workers import Startup, WorkerTable

OTLP_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""OpenTelemetry's environment variables that say where traces go."""


@dataclass
class RouterState:
    """Create it inside the event loop; `close` it after the last request."""

    config: RouterConfig
    table: WorkerTable
    metrics: Metrics
    routing: Routing
    admission: Admission
    upstream: Upstream
    dispatcher: Dispatcher
    prober: Prober
    tasks: TaskRouter | None
    """Chooses modules for `auto`, where that is on."""
    activity: Activity
    loads: Loads
    draining: bool = False
    """SIGTERM came: finish what runs, refuse what comes."""
    roles: Roles = field(init=False)
    given: GivenAnswers = field(init=False)
    tracing: Tracing = field(init=False)
    clients: Clients = field(init=False)
    engine_metrics: EngineMetrics = field(init=False)
    startup: Startup = field(init=False)
    lengths: TextLengths = field(init=False)
    shadows: Shadows = field(init=False)

    def __post_init__(self) -> None:
        self.roles = Roles(self.config, self.table, self.upstream)
        self.given = GivenAnswers(self.config, self.table, self.upstream)
        self.engine_metrics = EngineMetrics(self.table, self.upstream)
        self.tracing = _make_tracing(self.config)
        self.clients = Clients(self.config)
        self.startup = Startup(self.table, self.config.start_timeout_s, was_ready=self.config.was_ready)
        self.lengths = TextLengths(self.config.base)
        self.shadows = Shadows(self.dispatcher, self.table, self.admission, self.metrics.versions)

    @classmethod
    def create(cls, config: RouterConfig, first_turn: int = 0) -> RouterState:
        table = WorkerTable(config)
        metrics = Metrics(table, config.base.kv_token_bytes)
        upstream = Upstream(config, table)
        routing = Routing.create(config, table, metrics, first_turn)
        page = config.page_size if config.one_pool else None
        admission = Admission(routing, config.queue, metrics.load, config.kv_pool_tokens, page)
        dispatcher = Dispatcher(config, table, upstream, metrics, routing, admission)
        prober = Prober(config, table, upstream, dispatcher, admission)
        tasks = None
        if config.task_routing is not None:
            tasks = TaskRouter(
                config.task_routing, table, metrics.task_decided, BaseModel(config, table, dispatcher).ask
            )
            tasks.learn(task_modules(config))
        activity, loads = Activity(), Loads(table, upstream, one_pool=config.one_pool)
        return cls(config, table, metrics, routing, admission, upstream, dispatcher, prober, tasks, activity, loads)

    def reconfigure(self, config: RouterConfig) -> None:
        """Serve the modules and workers of `config` from now on, in one step.

        Raises UsageError, and changes nothing, when another field differs.
        """
        for name in RouterConfig.model_fields.keys() - CHANGEABLE:
            if getattr(config, name) != getattr(self.config, name):
                raise UsageError(f"{name} cannot change while the router runs: restart it")
        self.config = config
        self.clients.reconfigure(config)
        self.table.reconfigure(config)
        self.routing.reconfigure()
        if self.tasks is not None:
            self.tasks.relearn(task_modules(config))

    async def close(self) -> None:
        if self.tasks is not None:
            await self.tasks.close()
        await self.shadows.close()
        await self.prober.close()
        await self.upstream.close()
        await self.routing.close()
        await asyncio.to_thread(self.tracing.close)  # it may have spans to send


def _make_tracing(config: RouterConfig) -> Tracing:
    """What the file or OpenTelemetry's environment variables ask for. Raises StartError."""
    if config.otlp_traces_endpoint is None and not any(os.environ.get(name) for name in OTLP_ENDPOINTS):
        return Tracing()
    # Only here: a router without tracing does not pay for the import.
    from psserve.router.observability.otel import otlp_tracing

    return otlp_tracing(config.otlp_traces_endpoint)


STATE = web.AppKey("state", RouterState)
