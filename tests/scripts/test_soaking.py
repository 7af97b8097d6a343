"""What a soak judges by: the growth of each process in its last life."""

from __future__ import annotations

from scripts.soaking.leaks import Sample, growth, too_much


def life(name: str, pid: int, start: float, count: int, mib_a_second: float) -> list[Sample]:
    return [Sample(name, start + 5 * i, pid, 100 + 5 * i * mib_a_second) for i in range(count)]


def test_growth_is_that_of_the_last_life_where_it_was_long_enough() -> None:
    samples = life("router", 1, 0, 200, 9.0) + life("router", 2, 1000, 200, 0.01) + life("prefill-0", 3, 0, 20, 9.0)
    assert growth(samples) == {"prefill-0": None, "router": 36.0}


def test_a_server_may_waver_more_than_the_router() -> None:
    grown = {"prefill-0": 100.0, "decode-a-0": 501.0, "router": 100.0, "decode-b-0": None}
    assert [words.split()[3] for words in too_much(grown)] == ["decode-a-0", "router"]
