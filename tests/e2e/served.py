"""The fleets of the exactness suite, and what they must answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import aiohttp
import openai
from prometheus_client.parser import text_string_to_metric_families

from psserve.zoo.synthetic.zoo import Architecture
from tests.e2e.fleet import RunningFleet
from tests.e2e.oracle import Oracle


@dataclass(frozen=True)
class Setting:
    architecture: Architecture
    page: int
    chunk: int
    overlap: bool
    arguments: tuple[str, ...]
    config: str = ""
    """Of fleet.toml."""


@dataclass(frozen=True)
class Served:
    """A running fleet and what it must answer."""

    fleet: RunningFleet
    oracle: Oracle
    setting: Setting

    @property
    def url(self) -> str:
        return self.fleet.url


SETTINGS = (
    Setting("qwen3", 16, 2048, True, ("--page-size", "16"), "router = {router_workers = 2}"),
    Setting(
        "llama",
        1,
        64,
        False,
        ("--page-size", "1", "--chunked-prefill-size", "64", "--", "--disable-overlap-schedule"),
        "prefill = {replicas = 2}\nmodule = {alpha = {replicas = 2}}\nrouter = {kv_events = true}",
    ),
)


async def each_process_took_part(served: Served) -> None:
    """Fail unless every process of the router has answered a quarter of 200 completions."""
    async with aiohttp.ClientSession() as http, http.get(f"{served.url}/metrics") as answer:
        page = text_string_to_metric_families(await answer.text())
    answered: Counter[str] = Counter()
    for sample in (sample for family in page for sample in family.samples):
        if sample.name == "psserve_requests_total" and sample.labels["route"] == "completions":
            answered[sample.labels.get("process", "0")] += int(sample.value)
    assert answered.keys() == set(map(str, range(served.fleet.config["router_workers"])))
    assert min(answered.values()) >= 50, answered


def official_client(served: Served) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
