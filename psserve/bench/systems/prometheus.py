"""Reading Prometheus text: sums over labels, and what happened between two readings."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

Reading = Mapping[str, float]
"""Sample name -> its value, summed over all labels."""


@dataclass(frozen=True)
class HistogramDelta:
    """What a histogram saw between two readings. `mean` is None when that was nothing."""

    count: int
    total: float

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None


def parse(text: str) -> dict[str, float]:
    """All samples of a scrape but the buckets of histograms, which cannot be summed over their labels.

    Raises ValueError when `text` is not in Prometheus' format.
    """
    reading: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if "le" not in sample.labels:
                reading[sample.name] = reading.get(sample.name, 0.0) + sample.value
    return reading


def delta(before: Reading, after: Reading, name: str) -> HistogramDelta:
    """What histogram `name` saw between two readings; one that is missing has seen nothing yet."""

    def grown(sample: str) -> float:
        return after.get(sample, 0.0) - before.get(sample, 0.0)

    return HistogramDelta(round(grown(f"{name}_count")), grown(f"{name}_sum"))


def scrape(url: str, key: str | None = None) -> dict[str, float]:
    """Read `url`/metrics now, with the key that it requires. Raises OSError when it does not answer."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{url}/metrics", headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return parse(answer.read().decode())
