"""Metrics by a module's version, to compare one on trial with the other. Three counters each, and no buckets."""

from __future__ import annotations

from collections.abc import Collection

from psserve.router.observability.exchange import Exchange
from psserve.router.observability.instruments import Instruments


class VersionMetrics:
    """Counters labelled by module and version."""

    def __init__(self, registry: Instruments) -> None:
        self.requests = registry.counter(
            "psserve_version_requests_total", "Requests answered, by the version that did.", "module", "version", "code"
        )
        self.seconds = registry.counter(
            "psserve_version_request_seconds_total", "Their times from arrival to last byte.", "module", "version"
        )
        self.tokens = registry.counter(
            "psserve_version_generation_tokens_total", "Output tokens of those that succeeded.", "module", "version"
        )
        self._seen: set[tuple[str, str]] = set()

    def answered(self, exchange: Exchange, code: str, now: float) -> None:
        """Count a request that ended `now` (monotonic seconds), if it was for a version."""
        if exchange.version is None:
            return
        labels = (exchange.module, str(exchange.version))
        self._seen.add(labels)
        self.requests.labels(*labels, code).inc()
        self.seconds.labels(*labels).inc(now - exchange.started)
        if exchange.usage is not None:
            self.tokens.labels(*labels).inc(exchange.usage["completion_tokens"])

    def forget_others(self, served: Collection[tuple[str, str]]) -> None:
        """Drop the series of versions that are not `served` any more."""
        for module, version in self._seen - set(served):
            for metric in (self.requests, self.seconds, self.tokens):
                metric.remove_by_labels({"module": module, "version": version})
        self._seen &= set(served)
