"""The measured part of a result line."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from psserve.bench.metrics import Slo, summarise
from psserve.bench.record import INTERRUPTED
from psserve.bench.result import RunFacts, result_line
from psserve.errors import UsageError

from .records import record

FACTS = RunFacts(
    run="r", system="shared", modules=("math",), workload={"preset": "react"}, load={}, command="", started=0.0
)


def keys_of_bench_serving() -> set[str]:
    """The keys that the installed bench_serving writes, from its source: importing it would load torch."""
    found = importlib.util.find_spec("sglang")
    assert found is not None
    assert found.submodule_search_locations is not None
    source = Path(found.submodule_search_locations[0], "benchmark", "serving.py").read_text()
    dicts = [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Dict)
        and any(isinstance(target, ast.Name) and target.id == "result" for target in node.targets)
    ]
    keys = {key.value for each in dicts for key in each.keys if isinstance(key, ast.Constant)}
    assert "mean_ttft_ms" in keys
    return {str(key) for key in keys} | {"cache_report"}


def test_a_line_has_the_keys_of_bench_serving_and_psserve() -> None:
    assert set(result_line(summarise([record()]), FACTS)) == keys_of_bench_serving() | {"psserve"}


def test_latencies_are_those_of_bench_serving() -> None:
    line = summarise([record(), record(3.0, first_s=3.4, done_s=4.0)])
    assert line["mean_ttft_ms"] == pytest.approx(300)
    assert line["median_tpot_ms"] == pytest.approx((400 + 300) / 2)  # (latency - TTFT) / (tokens - 1)
    assert line["mean_itl_ms"] == pytest.approx(400)
    assert line["p99_e2e_latency_ms"] == pytest.approx(1000)
    assert line["duration"] == pytest.approx(4)
    assert line["request_throughput"] == pytest.approx(0.5)
    assert line["concurrency"] == pytest.approx(0.5)


def test_a_piece_of_several_tokens_does_not_change_tpot() -> None:
    assert summarise([record(chunk_s=(0.2, 1.0))])["mean_tpot_ms"] == pytest.approx(400)


def test_warmup_is_left_out_of_everything_but_its_own_count() -> None:
    line = summarise([record(0.0, warmup=True), record(10.0)])
    assert (line["completed"], line["duration"]) == (1, pytest.approx(1.0))
    assert line["psserve"]["warmup_requests"] == 1


def test_failed_requests_are_counted_by_message_and_measured_nowhere() -> None:
    failed = [record(n, session=f"f{n}", error="status 503", first_s=None, chunk_s=()) for n in range(2)]
    line = summarise([record(), *failed])
    assert line["completed"] == 1
    assert line["mean_e2e_latency_ms"] == pytest.approx(1000)
    assert line["psserve"]["errors"] == {"requests": 2, "interrupted": 0, "by_message": {"status 503": 2}}
    assert line["psserve"]["sessions"]["failed"] == 2


def test_nothing_done_is_all_zeros() -> None:
    line = summarise([record(error="status 500")])
    assert (line["completed"], line["p99_ttft_ms"], line["request_throughput"]) == (0, 0, 0)
    assert summarise([])["duration"] == 0


def test_a_session_lasts_from_its_first_request_to_its_last_answer_and_waits_without_its_tools() -> None:
    steps = [record(0.0), record(3.0, step=1), record(3.0, step=1, call=1, done_s=5.0)]
    sessions = summarise(steps)["psserve"]["sessions"]
    assert sessions["mean_session_latency_ms"] == pytest.approx(5000)
    assert sessions["mean_session_waiting_ms"] == pytest.approx(1000 + 2000)
    assert sessions["completed"] == 1


def test_a_session_that_had_to_wait_for_a_place_lasts_from_its_arrival() -> None:
    sessions = summarise([record(5.0, arrived_s=2.0), record(7.0, step=1)])["psserve"]["sessions"]
    assert sessions["mean_session_latency_ms"] == pytest.approx(6000)
    assert sessions["mean_session_waiting_ms"] == pytest.approx(2000)


def test_an_interrupted_session_neither_failed_nor_ended() -> None:
    line = summarise([record(), record(2.0, step=1, error=INTERRUPTED, first_s=None)])
    sessions = line["psserve"]["sessions"]
    assert (sessions["completed"], sessions["failed"], sessions["interrupted"]) == (0, 0, 1)
    assert line["psserve"]["errors"]["interrupted"] == 1


def test_cached_tokens_and_modules() -> None:
    line = summarise([record(), record(1.0, session="t", module="code", cached_tokens=100)])
    assert line["cache_report"]["cache_hit_rate_pct"] == 70
    assert line["psserve"]["per_module"]["code"]["cache_report"]["cache_hit_rate_pct"] == 100
    assert line["psserve"]["per_module"]["math"]["completed"] == 1


def test_answers_of_another_length_are_counted() -> None:
    assert summarise([record(asked_tokens=3), record(asked_tokens=4)])["psserve"]["other_lengths"] == 1


def test_goodput_counts_what_keeps_all_limits() -> None:
    line = summarise([record(), record(1.0, first_s=1.5), record(2.0, error="status 500")], Slo.parse("ttft=300"))
    goodput = line["psserve"]["goodput"]
    assert goodput["good_requests"] == 1
    assert goodput["goodput"] == pytest.approx(1 / 3)
    assert goodput["good_request_fraction"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("text", ["", "ttft", "ttft=0", "ttft=x", "ttft=nan", "latency=3", "ttft=1,ttft=2"])
def test_an_objective_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--slo "):
        Slo.parse(text)


def test_a_late_client_is_told() -> None:
    late = [record(n + 0.0, due_s=n / 10, session=f"s{n}") for n in range(10)]
    warnings = summarise(late)["psserve"]["client"]["warnings"]
    assert "the client was the bottleneck" in warnings[0]
    assert "sent 1 sessions/s instead of 10" in warnings[1]


def test_a_client_that_kept_up_is_not_accused() -> None:
    assert summarise([record(n / 100, session=f"s{n}") for n in range(10)])["psserve"]["client"]["warnings"] == []
