"""Counters and histograms of prometheus_client whose labels are looked up fast, and the buckets of times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import prometheus_client
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.metrics import MetricWrapperBase

LOW = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08)
LATENCY = (*LOW, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 100, 200, 400, 600, 1200, 1800, 2400)
"""Buckets of times of requests, in seconds."""
PER_TOKEN = (
    *(0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04),
    *(0.06, 0.08, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8),
)
"""Buckets of times of tokens, in seconds."""


class _Labelled(MetricWrapperBase):
    """Keeps the children that it was asked for. For one thread, and label values that are given in order."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._known: dict[tuple[object, ...], Self] = {}

    def labels(self, *labelvalues: object, **labelkwargs: object) -> Self:
        child = self._known.get(labelvalues)
        if child is None:
            child = self._known[labelvalues] = super().labels(*labelvalues, **labelkwargs)
        return child

    def remove_by_labels(self, labels: dict[str, str]) -> None:
        self._known.clear()
        super().remove_by_labels(labels)


class Counter(_Labelled, prometheus_client.Counter):
    """prometheus_client's, with children looked up fast."""


class Histogram(_Labelled, prometheus_client.Histogram):
    """prometheus_client's, with children looked up fast."""


class Instruments(CollectorRegistry):
    """A registry, and what makes the metrics that are in it. `labels`: names of a metric's labels."""

    def counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(name, help, labels, registry=self)

    def gauge(self, name: str, help: str, *labels: str) -> Gauge:
        return Gauge(name, help, labels, registry=self)

    def histogram(self, name: str, help: str, buckets: Sequence[float], *labels: str) -> Histogram:
        """`buckets`: their upper bounds, in rising order."""
        return Histogram(name, help, labels, buckets=buckets, registry=self)
