"""What is measured of one router: latency at a steady rate, throughput when it has all it can do, many streams."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psserve.bench.systems.processes import cpu_seconds, pss_bytes
from router_bench.client import SHORT_WORDS, Answered, Connection, closed_loop, open_loop, requests
from router_bench.routers import Router

RATE = 200.0
ANSWER_TOKENS = 16
WARM_UP_S = 1.0
CONNECTIONS = 64
STREAMS = 1_000
STREAM_EVENTS = 100
RAMP_S = 4.0
SETTLE_S = 3.0
MIB = 2**20


@dataclass(frozen=True)
class Load:
    """Requests of an open loop. `first`: what counts is the first byte of a stream, not the end of an answer."""

    words: int
    stream: bool

    def times(self, answers: Sequence[Answered]) -> list[float]:
        return [answered.first_s if self.stream else answered.total_s for answered in answers]


async def latency(router: Router, load: Load, seconds: float, seed: int) -> list[float]:
    """Seconds that each of RATE requests a second took."""
    made = requests(router.port, words=load.words, max_tokens=ANSWER_TOKENS, stream=load.stream, seed=seed)
    await open_loop(router.port, made, RATE, WARM_UP_S)
    return load.times(await open_loop(router.port, made, RATE, seconds))


@dataclass(frozen=True)
class Throughput:
    """With CONNECTIONS that are never idle."""

    requests: int
    seconds: float
    cpu_s: float
    """CPU time of the router meanwhile; 0 where there is none."""


async def throughput(router: Router, seconds: float, seed: int) -> Throughput:
    made = requests(router.port, words=SHORT_WORDS, max_tokens=ANSWER_TOKENS, stream=False, seed=seed)
    await closed_loop(router.port, made, CONNECTIONS, WARM_UP_S)
    before = used_cpu_s(router)
    count, took = await closed_loop(router.port, made, CONNECTIONS, seconds)
    return Throughput(count, took, used_cpu_s(router) - before)


@dataclass(frozen=True)
class Streams:
    """STREAMS at once, twice. Memory in MiB (proportional set size), of the router and its children."""

    before: float
    """After the warm-up, with no stream."""
    during: list[float]
    """Early and late in the first wave, then in the second, all with every stream open."""
    after: list[float]
    """After each wave, with no stream."""
    chunk_us: float
    """The router's CPU time for a streamed event, its share of the requests' own included."""
    late_s: float
    """How much longer than their events a stream took, at most."""

    @property
    def per_stream_kib(self) -> float:
        return 1024 * (max(self.during) - self.before) / STREAMS

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"per_stream_kib": self.per_stream_kib}


async def streams(router: Router, interval: float, seed: int) -> Streams:
    """`interval`: seconds between the events of the workers' streams."""
    made = requests(router.port, words=SHORT_WORDS, max_tokens=STREAM_EVENTS, stream=True, seed=seed)
    few = requests(router.port, words=SHORT_WORDS, max_tokens=2, stream=True, seed=seed)
    await open_loop(router.port, few, RATE, WARM_UP_S)
    before = memory(router)
    during, after, late, used = [], [], 0.0, 0.0
    for _ in range(2):
        start = used_cpu_s(router)
        connections = [await Connection.open(router.port) for _ in range(STREAMS)]
        running = asyncio.gather(*(_later(one, next(made), i) for i, one in enumerate(connections)))
        length = STREAM_EVENTS * interval
        await asyncio.sleep(RAMP_S + 0.5)
        during.append(memory(router))
        await asyncio.sleep(max(0.0, length - RAMP_S - 1.5))
        during.append(memory(router))
        late = max(late, max(answered.total_s for answered in await running) - length)
        used += used_cpu_s(router) - start
        for connection in connections:
            connection.close()
        await asyncio.sleep(SETTLE_S)
        after.append(memory(router))
    return Streams(before, during, after, 1e6 * used / (2 * STREAMS * STREAM_EVENTS), late)


async def _later(connection: Connection, request: bytes, number: int) -> Answered:
    """Streams start one after the other, over RAMP_S."""
    await asyncio.sleep(RAMP_S * number / STREAMS)
    return await connection.send(request)


def memory(router: Router) -> float:
    return pss_bytes(router.pid) / MIB if router.pid is not None else 0.0


def used_cpu_s(router: Router) -> float:
    """User and system time of the router since its start; 0 where there is none."""
    return cpu_seconds(router.pid) if router.pid is not None else 0.0
