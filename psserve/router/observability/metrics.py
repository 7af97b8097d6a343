"""The router's Prometheus metrics. Labels come from the configuration, never from clients."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from prometheus_client import generate_latest

from psserve.router.observability.demand import DemandMetrics
from psserve.router.observability.exchange import Exchange, SequenceRecord
from psserve.router.observability.instruments import LATENCY, PER_TOKEN, Counter, Histogram, Instruments
from psserve.router.observability.versions import VersionMetrics
from psserve.router.task_routing.choice import ModuleChoice
from psserve.router.workers.failures import LegFailure
from psserve.router.workers.workers import BREAKER_STATES, Worker, WorkerTable

OVERHEAD_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
WAIT_BUCKETS = (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
WORKER_STATES = ("starting", "ready", "down")

log = logging.getLogger("psserve.router")


class Metrics:
    """One registry a router, so that several can live in one process."""

    def __init__(self, table: WorkerTable, kv_token_bytes: int | None = None) -> None:
        """`kv_token_bytes`: size of one token's KV; None: not known."""
        self._table = table
        self._registry = registry = Instruments()
        self.requests = registry.counter("psserve_requests_total", "Requests answered.", "module", "route", "code")
        self.duration = registry.histogram(
            "psserve_request_duration_seconds", "Arrival to last byte.", LATENCY, "module", "route"
        )
        self.ttft = registry.histogram("psserve_ttft_seconds", "Arrival to first streamed byte.", LATENCY, "module")
        self.overhead = registry.histogram(
            "psserve_router_overhead_seconds", "Time added to the slower leg.", OVERHEAD_BUCKETS, "module"
        )
        self.sequences = SequenceMetrics(registry, kv_token_bytes)
        self.inflight = registry.gauge("psserve_inflight_requests", "Generations in flight.")
        # The loop is asked while a page is rendered, which happens in it.
        tasks = registry.gauge("psserve_router_tasks", "Coroutines under way in the router.")
        tasks.set_function(lambda: len(asyncio.all_tasks()))
        self.split_mismatch = registry.counter(
            "psserve_split_mismatch_total", "Answers discarded: the legs disagreed about the prompt."
        )
        self.leg_failures = registry.counter("psserve_leg_failures_total", "Legs that failed.", "role", "reason")
        self.prompt_tokens = registry.counter(
            "psserve_prompt_tokens_total", "Prompt tokens of answered requests.", "module"
        )
        self.cached_tokens = registry.counter(
            "psserve_cached_tokens_total", "Of these, tokens the base had cached.", "module"
        )
        self.routing_decisions = registry.counter(
            "psserve_routing_decisions_total", "Workers chosen, and why.", "role", "policy", "outcome"
        )
        self.task_seconds = registry.histogram(
            "psserve_task_decision_seconds", "Time to choose a module for `auto`.", OVERHEAD_BUCKETS
        )
        self.task_decisions = registry.counter(
            "psserve_task_decisions_total", "Requests for `auto`, by the module chosen and why.", "module", "outcome"
        )
        self.versions = VersionMetrics(registry)
        self.load = LoadMetrics(registry)
        self._worker_state = registry.gauge(
            "psserve_worker_state", "1 for a worker's present state.", "worker", "role", "state"
        )

    def leg_failed(self, failure: LegFailure, rid: str) -> None:
        """Count and log one failed leg."""
        self.leg_failures.labels(failure.role, failure.reason).inc()
        if failure.reason == "split":
            self.split_mismatch.inc()
        # What is said of the client's request quotes it: its text stays out of the log.
        said = {"refused": "refused the request", "unhandled": "cannot handle the request"}
        detail = said.get(failure.reason) or failure.detail[:500]
        level = logging.ERROR if failure.reason == "split" else logging.WARNING
        log.log(
            level,
            "leg failed rid=%s worker=%s reason=%s detail=%r",
            rid,
            failure.worker.name,
            failure.reason,
            detail,
        )

    def answered(self, exchange: Exchange, code: str, now: float) -> None:
        """Count a request that ended `now` (monotonic seconds). `code`: HTTP status, or of an error inside a stream."""
        module, route = exchange.module, exchange.route
        self.requests.labels(module, route, code).inc()
        if not exchange.is_work:
            return
        self.versions.answered(exchange, code, now)
        self.duration.labels(module, route).observe(now - exchange.started)
        if exchange.usage is not None:
            self.prompt_tokens.labels(module).inc(exchange.usage["prompt_tokens"])
            self.cached_tokens.labels(module).inc(exchange.cached_tokens or 0)
            self.sequences.ended(module, exchange.sequences, streamed=exchange.first_byte is not None)
        if exchange.first_byte is not None:
            self.ttft.labels(module).observe(exchange.first_byte - exchange.started)
        if exchange.overhead_s is not None:
            self.overhead.labels(module).observe(exchange.overhead_s)

    def task_decided(self, choice: ModuleChoice | None, seconds: float) -> None:
        """Count one request for `auto`; None: it was refused."""
        self.task_seconds.observe(seconds)
        module, outcome = (choice.module, choice.outcome) if choice is not None else ("-", "unclear")
        self.task_decisions.labels(module, outcome).inc()

    def render(self) -> bytes:
        """Prometheus' text format: of the workers and modules that there are now."""
        self._forget_modules()
        self.versions.forget_others(self._table.versions)
        self.load.look_at(self._table.workers)
        self._worker_state.clear()
        for worker in self._table.workers:
            for state in WORKER_STATES:
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


class SequenceMetrics:
    """Metrics of sequences, each labelled by module."""

    def __init__(self, registry: Instruments, kv_token_bytes: int | None) -> None:
        """`kv_token_bytes`: size of one token's KV; None: not known, and no bytes are counted."""
        self._kv_token_bytes = kv_token_bytes

        def counter(name: str, help: str) -> Counter:
            return registry.counter(name, help, "module")

        def histogram(name: str, help: str, buckets: tuple[float, ...]) -> Histogram:
            return registry.histogram(name, help, buckets, "module")

        self._prefill = histogram(
            "psserve_prefill_seconds",
            "Legs sent to prefill answered: the prefill server's queue, the base's work, the KV transfer.",
            LATENCY,
        )
        self._first_step = histogram(
            "psserve_first_step_seconds",
            "Prefill answered to first output: the decode server's queue and the module's first step. Streams only.",
            LATENCY,
        )
        self._tpot = histogram(
            "psserve_tpot_seconds",
            "Time per output token after the first: first to last output over tokens. Streams only.",
            PER_TOKEN,
        )
        self.gap = histogram(
            "psserve_itl_seconds", "Between arrivals of output, a token or more each. Streams only.", PER_TOKEN
        )
        self._generated = counter("psserve_generation_tokens_total", "Output tokens of answered requests.")
        self._shared = counter(
            "psserve_shared_prefix_tokens_total",
            "Prompt tokens that the base had cached from another module's request.",
        )
        self._decode_cached = counter(
            "psserve_decode_cached_tokens_total", "Prompt tokens whose KV the decode server had itself."
        )
        self._moved = counter(
            "psserve_kv_transferred_tokens_total", "Prompt tokens whose KV went from a prefill to a decode server."
        )
        self._moved_bytes = counter(
            "psserve_kv_transferred_bytes_total",
            "The same times the bytes of one token's KV (whole pages may be sent).",
        )
        self.by_module = (
            *(self._prefill, self._first_step, self._tpot, self.gap, self._generated),
            *(self._shared, self._decode_cached, self._moved, self._moved_bytes),
        )

    def ended(self, module: str, sequences: Iterable[SequenceRecord], streamed: bool) -> None:
        """An answered request's sequences."""
        for sequence in sequences:
            self._times(module, sequence, streamed)
            self._tokens(module, sequence)

    def _times(self, module: str, sequence: SequenceRecord, streamed: bool) -> None:
        self._prefill.labels(module).observe(max(0.0, sequence.prefilled - sequence.started))
        if not streamed:
            return
        if sequence.first_output is not None:
            self._first_step.labels(module).observe(max(0.0, sequence.first_output - sequence.prefilled))
        if (seconds := sequence.seconds_per_token) is not None:
            self._tpot.labels(module).observe(seconds)

    def _tokens(self, module: str, sequence: SequenceRecord) -> None:
        self._generated.labels(module).inc(sequence.output_tokens)
        if sequence.is_first:
            self._shared.labels(module).inc(sequence.shared_tokens)
        self._decode_cached.labels(module).inc(sequence.decode_cached_tokens)
        self._moved.labels(module).inc(sequence.transferred_tokens)
        if self._kv_token_bytes is not None:
            self._moved_bytes.labels(module).inc(sequence.transferred_tokens * self._kv_token_bytes)


class LoadMetrics:
    """Metrics of what waits, what is tried again, and what is left alone."""

    def __init__(self, registry: Instruments) -> None:
        self.queued = registry.gauge("psserve_queued_sequences", "Waiting to be sent to workers.", "module")
        self.wait = registry.histogram(
            "psserve_queue_seconds", "From a sequence's arrival to its being sent.", WAIT_BUCKETS, "module"
        )
        self.rejected = registry.counter(
            "psserve_queue_rejections_total",
            "Sequences that got no turn (full: 429; timeout: 408; unavailable: 503).",
            "module",
            "reason",
        )
        self.retries = registry.counter(
            "psserve_retries_total", "Failed attempts that were followed by another.", "role", "reason"
        )
        self.retries_denied = registry.counter("psserve_retries_denied_total", "Retries that were beyond the budget.")
        self._breaker_state = registry.gauge(
            "psserve_worker_breaker_state", "0 closed, 1 half-open, 2 open.", "worker", "role"
        )
        self._breaker_opened = registry.gauge(
            "psserve_worker_breaker_opened", "How often the breaker opened.", "worker", "role"
        )
        self.demand = DemandMetrics(registry)
        self.by_module = (self.queued, self.wait, self.rejected)

    def look_at(self, workers: Iterable[Worker]) -> None:
        """Take the states of the breakers and of what is asked of servers, of these workers alone."""
        workers = list(workers)
        self.demand.look_at(workers)
        self._breaker_state.clear()
        self._breaker_opened.clear()
        for worker in workers:
            labels = (worker.name, worker.config.role)
            self._breaker_state.labels(*labels).set(BREAKER_STATES.index(worker.breaker.state))
            self._breaker_opened.labels(*labels).set(worker.breaker.opened)
