"""What belongs to a run: the difference of two readings."""

from __future__ import annotations

from psserve.bench.systems.counters import Counters, SideCounters


def reading(time_s: float, prompt: float, cached: float, kv: float, cpu: float) -> Counters:
    return Counters(
        time_s=time_s,
        prefill=SideCounters(1, prompt, cached, 0.5),
        decode=SideCounters(),
        kv_transfers=2,
        kv_bytes=kv,
        transfer_s=1.0,
        cpu_s={"prefill-0": cpu},
        host_bytes=7,
        device_bytes=None,
    )


def test_a_run_is_charged_with_what_came_after_its_start() -> None:
    used = reading(14.0, 1_000, 900, 5_000, 9.0).since(reading(10.0, 200, 500, 1_000, 7.0))
    assert used["prefill"] | {"queue_s": 0.0} == {
        "requests": 0,
        "prompt_tokens": 800,
        "cached_tokens": 400,
        "hit_ratio": 0.5,
        "queue_s": 0.0,
    }
    assert (used["kv_bytes"], used["cpu_s"], used["cpu_cores"]) == (4_000, {"prefill-0": 2.0}, 0.5)


def test_servers_that_read_nothing_have_no_hit_ratio() -> None:
    assert reading(1, 5, 5, 0, 0).since(reading(0, 5, 5, 0, 0))["prefill"]["hit_ratio"] is None
