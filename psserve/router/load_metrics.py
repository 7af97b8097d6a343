"""Metrics of queues, retries and breakers."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Gauge

from psserve.router.breaker import STATES
from psserve.router.observability.labelled import Counter, Histogram
from psserve.router.workers import Worker

WAIT_BUCKETS = (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class LoadMetrics:
    """Part of a router's metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.queued = Gauge("psserve_queued_sequences", "Waiting to be sent to workers.", ["module"], registry=registry)
        self.wait = Histogram(
            "psserve_queue_seconds",
            "From a sequence's arrival to its being sent.",
            ["module"],
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self.rejected = Counter(
            "psserve_queue_rejections_total",
            "Sequences that got no turn (full: 429; timeout: 408; unavailable: 503).",
            ["module", "reason"],
            registry=registry,
        )
        self.retries = Counter(
            "psserve_retries_total",
            "Failed attempts that were followed by another.",
            ["role", "reason"],
            registry=registry,
        )
        self.retries_denied = Counter(
            "psserve_retries_denied_total", "Retries that were beyond the budget.", registry=registry
        )
        self._breaker_state = Gauge(
            "psserve_worker_breaker_state",
            "0 closed, 1 half-open, 2 open.",
            ["worker", "role"],
            registry=registry,
        )
        self._breaker_opened = Gauge(
            "psserve_worker_breaker_opened", "How often the breaker opened.", ["worker", "role"], registry=registry
        )
        self.by_module = (self.queued, self.wait, self.rejected)

    def look_at(self, workers: Iterable[Worker]) -> None:
        """Take the states of the breakers, of these workers alone."""
        self._breaker_state.clear()
        self._breaker_opened.clear()
        for worker in workers:
            labels = (worker.name, worker.config.role)
            self._breaker_state.labels(*labels).set(STATES.index(worker.breaker.state))
            self._breaker_opened.labels(*labels).set(worker.breaker.opened)
