"""What must be as it was once nothing runs: KV, queues and gauges at zero, descriptors and memory of the router."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import linear_regression
from typing import Any

import aiohttp
import psutil
from prometheus_client.parser import text_string_to_metric_families

from psserve.bench.systems.fleet import RunningFleet

IDLE_WITHIN_S = 120
GAUGES = ("psserve_inflight_requests", "psserve_queued_sequences")
SPARE_DESCRIPTORS = 16
"""Connections to workers, probes and our own question come and go."""


@dataclass(frozen=True)
class Sample:
    """The router at one moment. `pid` tells one life from the next."""

    seconds: float
    pid: int
    rss_mib: float
    descriptors: int


def look_at_router(fleet: RunningFleet, since: float) -> Sample:
    process = psutil.Process(fleet.pids()["router"])
    rss = process.memory_info().rss / 2**20
    return Sample(round(time.monotonic() - since, 1), process.pid, round(rss, 1), process.num_fds())


async def held(fleet: RunningFleet) -> dict[str, float]:
    """What is not zero of all that must be zero when nothing runs: by server and quantity."""
    found: dict[str, float] = {}
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {fleet.key}"}) as http:
        for worker in fleet.config["workers"]:
            async with http.get(fleet.worker_url(worker["name"]) + "/v1/loads") as answer:
                load = (await answer.json())["loads"][0]
            found |= {f"{worker['name']} {name}": value for name, value in _quantities(load).items()}
    async with aiohttp.ClientSession() as http:
        async with http.get(fleet.url + "/workers") as answer:
            for worker in (await answer.json())["workers"]:
                found |= {f"{worker['name']} router's {name}": worker[name] for name in ("running", "held")}
        async with http.get(fleet.url + "/metrics") as answer:
            text = await answer.text()
    for family in text_string_to_metric_families(text):
        if family.name in GAUGES:
            found[family.name] = sum(sample.value for sample in family.samples)
    return {name: value for name, value in found.items() if value}


def _quantities(load: dict[str, Any]) -> dict[str, float]:
    named = {name: load[name] for name in ("num_running_reqs", "num_waiting_reqs", "num_used_tokens")}
    return named | {name: value for name, value in load["disaggregation"].items() if name.endswith("_reqs")}


async def await_idle(fleet: RunningFleet) -> dict[str, float]:
    """Wait until nothing is held; what still is when the time is over."""
    found: dict[str, float] = {}
    for _ in range(2 * IDLE_WITHIN_S):
        if not (found := await held(fleet)):
            break
        await asyncio.sleep(0.5)
    return found


def slope_mib_per_hour(samples: Sequence[Sample]) -> float | None:
    """Growth of the router's memory over the second half of its last life, by least squares; None if that is short."""
    life = [sample for sample in samples if sample.pid == samples[-1].pid]
    late = life[len(life) // 2 :]
    if len(late) < 10:
        return None
    slope = linear_regression([sample.seconds for sample in late], [sample.rss_mib for sample in late]).slope
    return round(3600 * slope, 1)


def as_json(samples: Sequence[Sample], at_most: int = 60) -> list[dict[str, Any]]:
    """The samples, thinned out."""
    step = max(1, len(samples) // at_most)
    return [asdict(sample) for sample in samples[::step]]
