"""deploy/ and docs/metrics.md name the metrics that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from psserve.contracts.servers import LEASE_METRICS
from tests.grafana import expressions, panel_names
from tests.router.conftest import Fleet
from tests.wheel import BUILT_FROM

ROOT = Path(__file__).parents[3]
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
ROW = re.compile(r"^\| `(psserve_\w+)` \| (\w+) \|", re.M)


@pytest.fixture
async def families(fleet: Fleet) -> list[Metric]:
    """What a router has at /metrics, but for the times at which its series were made."""
    _, page = await fleet.get("/metrics")
    return [family for family in text_string_to_metric_families(page) if not family.name.endswith("_created")]


async def test_the_dashboard_asks_for_metrics_that_there_are(families: list[Metric]) -> None:
    there = {family.name + suffix for family in families for suffix in SUFFIXES[family.type]}
    assert panel_names("psserve_") - set(LEASE_METRICS) <= there
    assert set(LEASE_METRICS) <= panel_names("psserve_")  # prefill servers have these, with one KV pool


async def test_the_table_in_the_docs_has_every_metric(families: list[Metric]) -> None:
    told = set(ROW.findall((ROOT / "docs" / "metrics.md").read_text()))
    total = {"counter": "_total"}
    assert told == {(family.name + total.get(family.type, ""), family.type) for family in families}


def test_compose_mounts_files_that_there_are() -> None:
    services = yaml.safe_load((ROOT / "deploy" / "docker-compose.yml").read_text())["services"]
    mounted = [ROOT / "deploy" / volume.partition(":")[0] for one in services.values() for volume in one["volumes"]]
    assert len(mounted) == 3
    assert all(path.exists() for path in mounted)


def test_the_image_copies_files_that_there_are() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    sources = [name for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.M) for name in line.split()[:-1]]
    kept = set((ROOT / ".dockerignore").read_text().split())
    assert len(sources) == 7
    assert all((ROOT / name).exists() and f"!{name}" in kept for name in sources)
    assert {(ROOT / name).is_file() for name in re.findall(r"/(requirements/[\w.]+)", text)} == {True}


def test_the_images_wheel_is_built_from_what_a_wheel_is_built_from() -> None:
    stages = re.split(r"^FROM ", (ROOT / "deploy" / "Dockerfile").read_text(), flags=re.M)
    (wheel,) = (stage for stage in stages if "pip wheel" in stage)
    copied = [name for line in re.findall(r"^COPY (.+)$", wheel, re.M) for name in line.split()[:-1]]
    assert sorted(copied) == sorted(BUILT_FROM)


def test_the_container_is_built_from_a_target_that_there_is() -> None:
    (service,) = yaml.safe_load((ROOT / "deploy" / "serve.yaml").read_text())["services"].values()
    targets = re.findall(r"^FROM \S+ AS (\w+)$", (ROOT / "deploy" / "Dockerfile").read_text(), re.M)
    assert service["build"]["target"] in targets
    assert (ROOT / service["build"]["dockerfile"]).is_file()


async def test_prometheus_is_told_paths_that_answer(fleet: Fleet) -> None:
    jobs = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())["scrape_configs"]
    for job in jobs:
        status, _ = await fleet.get(job["metrics_path"])
        assert status == 200


def test_every_panel_is_of_all_of_a_routers_processes() -> None:
    """A gauge of the router has a sample for each; who shows it as it is draws as many lines."""
    router = [one for one in expressions() if "psserve_" in one]
    assert router
    assert all(re.match(r"\(?(sum|max|histogram_quantile)\b", one) for one in router)
    assert not [one for one in router if "worker_state" in one and "sum" in one]  # each process knows every worker


def test_what_servers_say_counts_once_however_many_routers_pass_it_on() -> None:
    sums = [one for one in expressions() if re.search(r"sum by \(worker\) .*sglang:", one)]
    assert sums
    assert all("(max without (instance, pod) (sglang:" in one for one in sums)
