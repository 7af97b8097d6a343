"""What must be as it was once nothing runs: KV, leases, queues and gauges at zero, the router's descriptors and
coroutines.

And what must not grow while something runs: the memory of every process, which holds whatever has no gauge (SGLang's
rooms, ids of requests).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import linear_regression
from typing import Any

import psutil

from psserve.bench.systems.counters import scrape
from psserve.bench.systems.fleet import RunningFleet
from psserve.fleet.run.memory import family
from psserve.fleet.run.router_client import HttpClient, RouterClient

IDLE_WITHIN_S = 120
ANSWER_S = 10.0
GAUGES = ("psserve_inflight_requests", "psserve_queued_sequences")
TASKS = "psserve_router_tasks"
LEASES = "psserve_kv_leases"
SPARE = {"descriptors": 16, "coroutines": 16}
"""Connections to workers, probes and our own question come and go."""
LATE_S = 150.0
"""Memory is judged over at least so long."""
GROWTH_LIMITS = {"router": 60.0}
"""MiB an hour."""
SERVER_GROWTH_LIMIT = 500.0
"""The same for SGLang's servers, of three processes each: their allocators' noise is larger."""


@dataclass(frozen=True)
class Sample:
    """A server with its children, or the router, at one moment. `pid` tells one life from the next."""

    name: str
    seconds: float
    pid: int
    own_mib: float
    """Resident and shared with nobody: a pool that servers map takes up memory where it was written to, and no more."""


def look(fleet: RunningFleet, since: float) -> Iterator[Sample]:
    """All processes of the fleet. Raises psutil.Error, TypeError or ValueError while one is being restarted."""
    for name, pid in fleet.pids().items():
        infos = [process.memory_info() for process in family(pid)]
        own = sum(info.rss - info.shared for info in infos) / 2**20
        yield Sample(name, round(time.monotonic() - since, 1), pid, round(own, 1))


def router_at_rest(fleet: RunningFleet) -> dict[str, float]:
    """What the router has open and under way."""
    descriptors = psutil.Process(fleet.pids()["router"]).num_fds()
    return {"descriptors": descriptors, "coroutines": scrape(fleet.url)[TASKS]}


def held(fleet: RunningFleet) -> dict[str, float]:
    """What is not zero of all that must be zero when nothing runs: by server and quantity."""
    found: dict[str, float] = {}
    for worker in fleet.config["workers"]:
        name = worker["name"]
        load = json.loads(HttpClient(fleet.worker_url(name), fleet.key).get("/v1/loads", ANSWER_S))["loads"][0]
        found |= {f"{name} {quantity}": value for quantity, value in _quantities(load).items()}
        found[f"{name} {LEASES}"] = scrape(fleet.worker_url(name), fleet.key).get(LEASES, 0.0)
    for name, view in RouterClient(fleet.url).workers(ANSWER_S).items():
        found |= {f"{name} router's running": view.running, f"{name} router's held": view.held}
    samples = scrape(fleet.url)
    found |= {gauge: samples.get(gauge, 0.0) for gauge in GAUGES}
    return {name: value for name, value in found.items() if value}


def _quantities(load: dict[str, Any]) -> dict[str, float]:
    named = {name: load[name] for name in ("num_running_reqs", "num_waiting_reqs", "num_used_tokens")}
    return named | {name: value for name, value in load["disaggregation"].items() if name.endswith("_reqs")}


async def await_idle(fleet: RunningFleet) -> dict[str, float]:
    """Wait until nothing is held; what still is when the time is over."""
    found: dict[str, float] = {}
    for _ in range(2 * IDLE_WITHIN_S):
        if not (found := await asyncio.to_thread(held, fleet)):
            break
        await asyncio.sleep(0.5)
    return found


def growth(samples: Sequence[Sample]) -> dict[str, float | None]:
    """MiB an hour by which each process grew over the second half of its last life, by least squares.

    None where that is too short to say.
    """
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        by_name.setdefault(sample.name, []).append(sample)
    return {name: _slope(some) for name, some in sorted(by_name.items())}


def _slope(samples: Sequence[Sample]) -> float | None:
    life = [sample for sample in samples if sample.pid == samples[-1].pid]
    late = life[len(life) // 2 :]
    if late[-1].seconds - late[0].seconds < LATE_S:
        return None
    slope = linear_regression([sample.seconds for sample in late], [sample.own_mib for sample in late]).slope
    return round(3600 * slope, 1)


def too_much(grown: dict[str, float | None]) -> list[str]:
    """Of what `growth` found, that which no noise explains, in words."""
    return [
        f"the memory of {name} grows by {slope:g} MiB an hour"
        for name, slope in grown.items()
        if slope is not None and slope > GROWTH_LIMITS.get(name, SERVER_GROWTH_LIMIT)
    ]


def as_json(samples: Sequence[Sample], at_most: int = 60) -> dict[str, list[dict[str, Any]]]:
    """The samples by name, thinned out."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for sample in samples:
        fields = asdict(sample)
        by_name.setdefault(fields.pop("name"), []).append(fields)
    return {name: some[:: max(1, len(some) // at_most)] for name, some in by_name.items()}
