"""Metrics by a module's version, to compare one on trial with the other. Some counters each, and no buckets."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from psserve.contracts.router_config import ModuleConfig
from psserve.router.observability.exchange import Exchange
from psserve.router.observability.instruments import Instruments

ShadowOutcome = Literal["same", "different", "sampled", "failed", "skipped"]
"""Of a copy: its answer was the client's; was another; was bound to differ, for tokens are drawn at random; there was
none; or it was not sent, for there was more to do."""


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
        self.shadows = registry.counter(
            "psserve_shadow_answers_total", "Copies for a version in the shadow.", "module", "version", "outcome"
        )
        self.shadow_tokens = registry.counter(
            "psserve_shadow_tokens_total", "Output tokens of what was compared.", "module", "version", "answer"
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

    def shadowed(self, tried: ModuleConfig, outcome: ShadowOutcome, tokens: tuple[int, int] | None = None) -> None:
        """Count what became of a copy. `tokens`: of the answer that its client got, and of the copy's."""
        labels = (tried.name, str(tried.shown_version))
        self._seen.add(labels)
        self.shadows.labels(*labels, outcome).inc()
        for answer, count in zip(("given", "shadow"), tokens or (), strict=False):
            self.shadow_tokens.labels(*labels, answer).inc(count)

    def forget_others(self, served: Collection[tuple[str, str]]) -> None:
        """Drop the series of versions that are not `served` any more."""
        for module, version in self._seen - set(served):
            for metric in (self.requests, self.seconds, self.tokens, self.shadows, self.shadow_tokens):
                metric.remove_by_labels({"module": module, "version": version})
        self._seen &= set(served)
