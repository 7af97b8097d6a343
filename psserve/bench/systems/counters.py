"""What the servers of a system have done since their start, so that the difference of two readings belongs to a run.

Servers tell it as Prometheus text, of which samples are summed over their labels.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from psserve.bench.systems.processes import cpu_seconds, device_bytes, pss_bytes
from psserve.fleet.run.router_client import HttpClient

_MIB = 2**20


@dataclass(frozen=True)
class Server:
    """One SGLang server of a running system: where it is, and what it does."""

    name: str
    url: str
    prefills: bool
    """Whether it reads prompts: a prefill server, or an ordinary one. If not, it is a decode server."""


@dataclass(frozen=True)
class SideCounters:
    """Counts of the servers that read prompts, or of the decode servers, together, since their start."""

    requests: float = 0.0
    prompt_tokens: float = 0.0
    cached_tokens: float = 0.0
    """Of the prompts' tokens, those whose KV the radix caches had."""
    queue_s: float = 0.0
    """Time of all requests in the queue for computation, added up."""

    def __add__(self, other: SideCounters) -> SideCounters:
        return SideCounters(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))

    def __sub__(self, other: SideCounters) -> SideCounters:
        return SideCounters(*(a - b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))

    @property
    def hit_ratio(self) -> float | None:
        """Part of the prompts' tokens that was cached; None if there were none."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else None


@dataclass(frozen=True)
class Counters:
    """One reading of all of a system's servers."""

    time_s: float
    """Monotonic clock."""
    prefill: SideCounters
    """Of servers that read prompts: prefill servers, or ordinary ones."""
    decode: SideCounters
    kv_transfers: float
    """Requests whose KV was sent from one server to another."""
    kv_bytes: float
    """That was sent."""
    transfer_s: float
    """Time of all transfers, added up."""
    cpu_s: Mapping[str, float]
    """CPU time by process tree; of processes that run now."""
    host_bytes: int
    """Main memory now, shared pages counted once (proportional set sizes)."""
    device_bytes: int | None
    """GPU memory now; None where no process has any."""

    def since(self, before: Counters) -> dict[str, Any]:
        """What happened after `before`, as JSON; memory is as it is now."""
        elapsed = self.time_s - before.time_s
        cpu = {name: round(now - before.cpu_s.get(name, 0.0), 3) for name, now in self.cpu_s.items()}
        return {
            "seconds": round(elapsed, 3),
            "prefill": _side(self.prefill - before.prefill),
            "decode": _side(self.decode - before.decode),
            "kv_transfers": round(self.kv_transfers - before.kv_transfers),
            "kv_bytes": round(self.kv_bytes - before.kv_bytes),
            "transfer_s": round(self.transfer_s - before.transfer_s, 3),
            "cpu_s": cpu,
            "cpu_cores": round(sum(cpu.values()) / elapsed, 3) if elapsed > 0 else None,
            "host_bytes": self.host_bytes,
            "device_bytes": self.device_bytes,
        }


def read_counters(servers: Sequence[Server], pids: Mapping[str, int], key: str | None) -> Counters:
    """Read all servers now. `pids`: the processes whose trees are the system, by name. Raises FleetError."""
    prefill, decode = SideCounters(), SideCounters()
    transfers = kv_mib = transfer_ms = 0.0
    for server in servers:
        reading = scrape(server.url, key)
        if server.prefills:
            prefill += _side_of(reading)
        else:
            decode += _side_of(reading)
        transfers += reading.get("sglang:kv_transfer_total_mb_count", 0.0)
        kv_mib += reading.get("sglang:kv_transfer_total_mb_sum", 0.0)
        transfer_ms += reading.get("sglang:kv_transfer_latency_ms_sum", 0.0)
    return Counters(
        time_s=time.monotonic(),
        prefill=prefill,
        decode=decode,
        kv_transfers=transfers,
        kv_bytes=kv_mib * _MIB,
        transfer_s=transfer_ms / 1000,
        cpu_s={name: cpu_seconds(pid) for name, pid in pids.items()},
        host_bytes=sum(map(pss_bytes, pids.values())),
        device_bytes=device_bytes(pids.values()),
    )


def _side_of(reading: Mapping[str, float]) -> SideCounters:
    return SideCounters(
        requests=reading.get("sglang:num_requests_total", 0.0),
        prompt_tokens=reading.get("sglang:prompt_tokens_total", 0.0),
        cached_tokens=reading.get("sglang:cached_tokens_total", 0.0),
        queue_s=reading.get("sglang:queue_time_seconds_sum", 0.0),
    )


def _side(side: SideCounters) -> dict[str, Any]:
    hit_ratio = side.hit_ratio
    return {
        "requests": round(side.requests),
        "prompt_tokens": round(side.prompt_tokens),
        "cached_tokens": round(side.cached_tokens),
        "hit_ratio": None if hit_ratio is None else round(hit_ratio, 4),
        "queue_s": round(side.queue_s, 3),
    }


Reading = Mapping[str, float]
"""Sample name -> its value, summed over all labels."""


def scrape(url: str, key: str | None = None) -> dict[str, float]:
    """Read `url`/metrics now, with the key that it requires. Raises FleetError when it does not answer."""
    return parse_samples(HttpClient(url, key).get("/metrics", timeout_s=10).decode())


def parse_samples(text: str) -> dict[str, float]:
    """All samples of a scrape but the buckets of histograms, which cannot be summed over their labels.

    Raises ValueError when `text` is not in Prometheus' format.
    """
    reading: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if "le" not in sample.labels:
                reading[sample.name] = reading.get(sample.name, 0.0) + sample.value
    return reading


@dataclass(frozen=True)
class HistogramDelta:
    """What a histogram saw between two readings. `mean` is None when that was nothing."""

    count: int
    total: float

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None


def delta(before: Reading, after: Reading, name: str) -> HistogramDelta:
    """What histogram `name` saw between two readings; one that is missing has seen nothing yet."""

    def grown(sample: str) -> float:
        return after.get(sample, 0.0) - before.get(sample, 0.0)

    return HistogramDelta(round(grown(f"{name}_count")), grown(f"{name}_sum"))
