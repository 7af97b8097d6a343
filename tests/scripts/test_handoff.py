from __future__ import annotations

from scripts.measuring.handoff import figures

TIMES = {"miss": [0.9, 0.8, 1.0], "shared_hit": [0.3, 0.25, 0.35], "local_hit": [0.1, 0.15, 0.05]}


def test_bytes_a_second_from_the_engine_and_from_the_client() -> None:
    row = figures(1024, TIMES, {"miss": 0}, latency_ms=[100.0, 50.0, 200.0], size_mb=[64.0, 64.0, 64.0])
    assert row["kv_bytes"] == 64 * 2**20
    assert row["handoff_ms"] == {"engine": 100.0, "client": 200.0}
    assert row["handoff_bytes_per_second"] == {"engine": 640 * 2**20, "client": 320 * 2**20}
    assert row["ttft_ms"]["miss"]["median"] == 900.0


def test_a_difference_lost_in_noise_gives_no_rate() -> None:
    times = TIMES | {"shared_hit": TIMES["local_hit"]}
    row = figures(1024, times, {}, latency_ms=[0.0, 0.0, 0.0], size_mb=[1.0, 1.0, 1.0])
    assert row["handoff_bytes_per_second"] == {"engine": None, "client": None}
