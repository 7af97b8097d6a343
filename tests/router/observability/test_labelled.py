from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from psserve.router.observability.instruments import Counter, Histogram


def test_counts_are_on_the_page_under_their_labels() -> None:
    registry = CollectorRegistry()
    counter = Counter("tries", "Tries.", ["module", "code"], registry=registry)
    for _ in range(3):
        counter.labels("math", 200).inc()
    assert b'tries_total{code="200",module="math"} 3.0' in generate_latest(registry)


def test_the_same_labels_are_the_same_child() -> None:
    histogram = Histogram("seconds", "Seconds.", ["module"], registry=CollectorRegistry())
    assert histogram.labels("math") is histogram.labels("math")
    assert histogram.labels("math") is not histogram.labels("code")


def test_removed_labels_begin_anew() -> None:
    registry = CollectorRegistry()
    counter = Counter("tries", "Tries.", ["module"], registry=registry)
    counter.labels("math").inc()
    counter.remove_by_labels({"module": "math"})
    assert b'module="math"' not in generate_latest(registry)
    counter.labels("math").inc()
    assert b'tries_total{module="math"} 1.0' in generate_latest(registry)
