"""/engine_metrics: the servers' metrics on one page."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from psserve.router.observability.engine_metrics import merged_pages
from tests.router.conftest import Fleet

PAGE = """\
# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="m",text="a } \\" b"} 3.0
# HELP up Plain.
# TYPE up gauge
up 1.0
# HELP t_seconds Times.
# TYPE t_seconds histogram
t_seconds_bucket{le="1.0"} 2.0
t_seconds_bucket{le="+Inf"} 2.0
t_seconds_count{} 2.0
t_seconds_sum{} 0.5
"""


def test_samples_get_the_workers_name_and_families_one_header() -> None:
    page = merged_pages([("a", PAGE), ("b", None), ("c", PAGE)]).decode()
    families = {family.name: family for family in text_string_to_metric_families(page)}
    assert page.count("# TYPE t_seconds") == 1
    assert {sample.labels["worker"] for sample in families["t_seconds"].samples} == {"a", "c"}
    running = families["sglang:num_running_reqs"].samples
    assert [(one.labels["worker"], one.labels["text"], one.value) for one in running] == [
        ("a", 'a } " b', 3.0),
        ("c", 'a } " b', 3.0),
    ]
    assert [one.value for one in families["psserve_engine_metrics_up"].samples] == [1, 0, 1]


def test_lines_that_are_no_samples_are_left_out() -> None:
    page = merged_pages([("a", "<html>\n\x00\n# EOF\nfine 1\n")]).decode()
    assert page.splitlines()[2:] == ['psserve_engine_metrics_up{worker="a"} 1', 'fine{worker="a"} 1']


async def test_all_workers_are_asked(fleet: Fleet) -> None:
    for worker in fleet.workers:
        worker.metrics_page = f"# TYPE port gauge\nport {worker.port}\n"
    _, page = await fleet.get("/engine_metrics")
    ports = {worker.name: float(worker.port) for worker in fleet.workers}
    for worker, port in ports.items():
        assert f'port{{worker="{worker}"}} {port:.0f}' in page


async def test_a_worker_that_is_down_leaves_the_others(fleet: Fleet) -> None:
    await fleet.math.stop()
    _, page = await fleet.get("/engine_metrics")
    assert 'psserve_engine_metrics_up{worker="decode-math-0"} 0' in page
    assert 'psserve_engine_metrics_up{worker="prefill-0"} 1' in page
