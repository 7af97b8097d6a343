from __future__ import annotations

from psserve.bench.systems.counters import delta, parse_samples

NAME = "sglang:kv_transfer_latency_ms"


def scraped(count: float, total: float, rank: int = 0) -> str:
    labels = f'engine_type="prefill",tp_rank="{rank}"'
    return (
        f"# HELP {NAME} Latency.\n# TYPE {NAME} histogram\n"
        f"{NAME}_sum{{{labels}}} {total}\n"
        f'{NAME}_bucket{{{labels},le="1.0"}} {count}\n'
        f'{NAME}_bucket{{{labels},le="+Inf"}} {count}\n'
        f"{NAME}_count{{{labels}}} {count}\n"
    )


def test_samples_are_summed_over_labels_and_buckets_left_out() -> None:
    text = scraped(1, 2.5) + scraped(2, 4.0, rank=1).split("histogram\n")[1]
    assert parse_samples(text) == {f"{NAME}_sum": 6.5, f"{NAME}_count": 3.0}


def test_a_delta_is_what_came_between_two_readings() -> None:
    change = delta(parse_samples(scraped(3, 100.0)), parse_samples(scraped(5, 130.0)), NAME)
    assert (change.count, change.total, change.mean) == (2, 30.0, 15.0)


def test_a_histogram_that_is_not_there_yet_counts_as_nothing_seen() -> None:
    assert delta({}, parse_samples(scraped(1, 7.0)), NAME).mean == 7.0


def test_nothing_seen_has_no_mean() -> None:
    reading = parse_samples(scraped(3, 100.0))
    assert delta(reading, reading, NAME).mean is None
