"""prometheus_client's metrics with labels, found quickly: a request counts on some fifteen of them.

`labels` of the library checks and locks each time, which takes longer than the counting itself.
"""

from __future__ import annotations

from typing import Any, Self

import prometheus_client
from prometheus_client.metrics import MetricWrapperBase


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
    """A counter."""


class Histogram(_Labelled, prometheus_client.Histogram):
    """A histogram."""
