"""What sharing saves and what handing KV over costs, by the length of the prompt.

Each round sends one new prompt three times, each time for one token, so that the answer's end is its first token too
(most ids of a random model's vocabulary are no text in its small tokenizer, and no text makes no event):

    miss        to the first module     the base computes the prompt, all KV travels
    shared hit  to the second module    the base has it already, all KV travels
    local hit   to the second again     its own server has it too, next to nothing travels
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from psserve.bench.systems.counters import HistogramDelta, Reading, delta, scrape
from psserve.bench.systems.fleet import RunningFleet

from .client import Client, completion, random_ids
from .report import in_ms, percentile

_LATENCY_MS = "sglang:kv_transfer_latency_ms"
_SIZE_MB = "sglang:kv_transfer_total_mb"
_MIB = 2**20
_METRICS_WITHIN_S = 30.0


async def measure(
    fleet: RunningFleet, modules: Sequence[str], length: int, rounds: int, vocab_size: int
) -> dict[str, Any]:
    """Rounds with prompts of `length` tokens. The first of them warms up and is left out."""
    rng = random.Random(length)
    first, second = modules[0], modules[-1]
    times: dict[str, list[float]] = {"miss": [], "shared_hit": [], "local_hit": []}
    cached: dict[str, int] = {}
    latency_ms, size_mb = [], []
    async with Client(fleet) as client:
        for number in range(rounds + 1):
            prompt = random_ids(rng, length, vocab_size)
            for kind, module in (("miss", first), ("shared_hit", second), ("local_hit", second)):
                before = _prefill_metrics(fleet)
                first_s, cached_tokens = await client.stream("/v1/completions", completion(module, prompt, 1))
                if number == 0:
                    continue
                times[kind].append(first_s)
                cached[kind] = cached_tokens
                if kind == "shared_hit":
                    latency, size = await _transfer(fleet, before)
                    latency_ms.append(latency.total)
                    size_mb.append(size.total)
    return figures(length, times, cached, latency_ms, size_mb)


def figures(
    length: int,
    times: dict[str, list[float]],
    cached: dict[str, int],
    latency_ms: Sequence[float],
    size_mb: Sequence[float],
) -> dict[str, Any]:
    """The measurements of one length as JSON. `times` are seconds, MB are MiB (as SGLang counts)."""
    added_s = median([hit - local for hit, local in zip(times["shared_hit"], times["local_hit"], strict=True)])
    moved = median(size_mb) * _MIB
    engine_s = median(latency_ms) / 1000
    ttft = {
        kind: {"median": in_ms(median(values)), "p95": in_ms(percentile(values, 95)), "all": list(map(in_ms, values))}
        for kind, values in times.items()
    }
    return {
        "prompt_tokens": length,
        "ttft_ms": ttft,
        "cached_tokens": cached,
        "kv_bytes": round(moved),
        "handoff_ms": {"engine": in_ms(engine_s), "client": in_ms(added_s)},
        "handoff_bytes_per_second": {"engine": _rate(moved, engine_s), "client": _rate(moved, added_s)},
    }


def _rate(size: float, seconds: float) -> float | None:
    """Bytes a second; None where the difference was lost in noise."""
    return round(size / seconds) if size > 0 and seconds > 0 else None


async def _transfer(fleet: RunningFleet, before: Reading) -> tuple[HistogramDelta, HistogramDelta]:
    """Latency (ms) and size (MiB) of the one transfer since `before`; SGLang counts it shortly after the answer."""
    deadline = time.monotonic() + _METRICS_WITHIN_S
    while True:
        after = _prefill_metrics(fleet)
        latency, size = delta(before, after, _LATENCY_MS), delta(before, after, _SIZE_MB)
        if size.count or time.monotonic() > deadline:
            return latency, size
        await asyncio.sleep(0.05)


def _prefill_metrics(fleet: RunningFleet) -> Reading:
    return scrape(fleet.worker_url("prefill-0"), fleet.key)
