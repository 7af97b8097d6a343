"""The router's Prometheus metrics. Labels come from the configuration, never from clients."""

from __future__ import annotations

import asyncio
import logging

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from psserve.router.failures import LegFailure
from psserve.router.load_metrics import LoadMetrics
from psserve.router.observability.buckets import LATENCY
from psserve.router.observability.labelled import Counter, Histogram
from psserve.router.observability.sequence_metrics import SequenceMetrics
from psserve.router.task_routing.choice import Choice
from psserve.router.workers import WorkerTable

OVERHEAD_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
STATES = ("starting", "ready", "down")

log = logging.getLogger("psserve.router")


class Metrics:
    """One registry a router, so that several can live in one process."""

    def __init__(self, table: WorkerTable, kv_token_bytes: int | None = None) -> None:
        """`kv_token_bytes`: size of one token's KV; None: not known."""
        self._table = table
        self._registry = registry = CollectorRegistry()
        by_module = ["module"]
        self.requests = Counter(
            "psserve_requests_total", "Requests answered.", ["module", "route", "code"], registry=registry
        )
        self.duration = Histogram(
            "psserve_request_duration_seconds",
            "Arrival to last byte.",
            ["module", "route"],
            buckets=LATENCY,
            registry=registry,
        )
        self.ttft = Histogram(
            "psserve_ttft_seconds",
            "Arrival to first streamed byte.",
            by_module,
            buckets=LATENCY,
            registry=registry,
        )
        self.overhead = Histogram(
            "psserve_router_overhead_seconds",
            "Time added to the slower leg.",
            by_module,
            buckets=OVERHEAD_BUCKETS,
            registry=registry,
        )
        self.sequences = SequenceMetrics(registry, kv_token_bytes)
        self.inflight = Gauge("psserve_inflight_requests", "Generations in flight.", registry=registry)
        # The loop is asked while a page is rendered, which happens in it.
        tasks = Gauge("psserve_router_tasks", "Coroutines under way in the router.", registry=registry)
        tasks.set_function(lambda: len(asyncio.all_tasks()))
        self.split_mismatch = Counter(
            "psserve_split_mismatch_total", "Answers discarded: the legs disagreed about the prompt.", registry=registry
        )
        self.leg_failures = Counter(
            "psserve_leg_failures_total", "Legs that failed.", ["role", "reason"], registry=registry
        )
        self.prompt_tokens = Counter(
            "psserve_prompt_tokens_total", "Prompt tokens of answered requests.", by_module, registry=registry
        )
        self.cached_tokens = Counter(
            "psserve_cached_tokens_total", "Of these, tokens the base had cached.", by_module, registry=registry
        )
        self.routing_decisions = Counter(
            "psserve_routing_decisions_total",
            "Workers chosen, and why.",
            ["role", "policy", "outcome"],
            registry=registry,
        )
        self.task_seconds = Histogram(
            "psserve_task_decision_seconds",
            "Time to choose a module for `auto`.",
            buckets=OVERHEAD_BUCKETS,
            registry=registry,
        )
        self.task_decisions = Counter(
            "psserve_task_decisions_total",
            "Requests for `auto`, by the module chosen and why.",
            ["module", "outcome"],
            registry=registry,
        )
        self.load = LoadMetrics(registry)
        self._worker_state = Gauge(
            "psserve_worker_state", "1 for a worker's present state.", ["worker", "role", "state"], registry=registry
        )

    def leg_failed(self, failure: LegFailure, rid: str) -> None:
        """Count and log one failed leg."""
        self.leg_failures.labels(failure.role, failure.reason).inc()
        if failure.reason == "split":
            self.split_mismatch.inc()
        # A refusal quotes the client's request: its text stays out of the log.
        detail = "refused the request" if failure.reason == "refused" else failure.detail[:500]
        level = logging.ERROR if failure.reason == "split" else logging.WARNING
        log.log(
            level,
            "leg failed rid=%s worker=%s reason=%s detail=%r",
            rid,
            failure.worker.name,
            failure.reason,
            detail,
        )

    def usage(self, module: str, prompt_tokens: int, cached_tokens: int) -> None:
        """Count the prompt of one answered request, in tokens."""
        self.prompt_tokens.labels(module).inc(prompt_tokens)
        self.cached_tokens.labels(module).inc(cached_tokens)

    def task_decided(self, choice: Choice | None, seconds: float) -> None:
        """Count one request for `auto`; None: it was refused."""
        self.task_seconds.observe(seconds)
        module, outcome = (choice.module, choice.outcome) if choice is not None else ("-", "unclear")
        self.task_decisions.labels(module, outcome).inc()

    def render(self) -> bytes:
        """Prometheus' text format: of the workers and modules that there are now."""
        self._forget_modules()
        self.load.look_at(self._table.workers)
        self._worker_state.clear()
        for worker in self._table.workers:
            for state in STATES:
                self._worker_state.labels(worker.name, worker.config.role, state).set(worker.state == state)
        return generate_latest(self._registry)

    def _forget_modules(self) -> None:
        """Drop the series of modules that are served no more; a late request may have made one anew since last time."""
        by_module = (
            *(self.requests, self.duration, self.ttft, self.overhead, *self.sequences.by_module),
            *(self.prompt_tokens, self.cached_tokens, self.task_decisions, *self.load.by_module),
        )
        for name in self._table.former_modules:
            for metric in by_module:
                metric.remove_by_labels({"module": name})
