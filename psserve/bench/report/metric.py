"""What a report tells of a run, by name: where it stands in the result line, its unit, and which way is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psserve.bench.result import ResultLine


@dataclass(frozen=True)
class Metric:
    """One figure of a run."""

    name: str
    label: str
    unit: str
    read: Callable[[ResultLine], float | None]
    """From a result line; None where the run does not tell. May raise KeyError or TypeError where a key is missing."""
    higher_is_better: bool | None = None
    """None: neither, it explains."""


def _key(name: str, scale: float = 1.0) -> Callable[[ResultLine], float | None]:
    def read(line: ResultLine) -> float | None:
        return float(line[name]) * scale

    return read


def _session(name: str, scale: float = 1.0) -> Callable[[ResultLine], float | None]:
    def read(line: ResultLine) -> float | None:
        return float(line["psserve"]["sessions"][name]) * scale

    return read


def _ours(*path: str, scale: float = 1.0) -> Callable[[ResultLine], float | None]:
    def read(line: ResultLine) -> float | None:
        found: Any = line["psserve"]
        for part in path:
            found = found[part]
        return float(found) * scale

    return read


def _errors(line: ResultLine) -> float | None:
    failed = line["psserve"]["errors"]["requests"]
    return failed / (failed + line["completed"]) if failed + line["completed"] else None


def _prefill_hit(line: ResultLine) -> float | None:
    report = line["cache_report"]
    return report["total_cached_tokens"] / report["total_prompt_tokens"] if report["total_prompt_tokens"] else None


def _counted(name: str, scale: float) -> Callable[[ResultLine], float | None]:
    """A count of the servers' for each request."""

    def read(line: ResultLine) -> float | None:
        requests = line["psserve"]["counters"]["prefill"]["requests"]
        return line["psserve"]["counters"][name] * scale / requests if requests else None

    return read


def _cpu(line: ResultLine) -> float | None:
    requests = line["psserve"]["counters"]["prefill"]["requests"]
    return sum(line["psserve"]["counters"]["cpu_s"].values()) / requests if requests else None


THROUGHPUT = Metric("throughput", "requests", "requests/s", _key("request_throughput"), True)
P95_SESSION = Metric("p95_session", "session latency, p95", "s", _session("p95_session_latency_ms", 1e-3), False)
P50_SESSION = Metric("p50_session", "session latency, median", "s", _session("median_session_latency_ms", 1e-3), False)
P95_WAITING = Metric("p95_waiting", "session without pauses, p95", "s", _session("p95_session_waiting_ms", 1e-3), False)
P99_SESSION = Metric("p99_session", "session latency, p99", "s", _session("p99_session_latency_ms", 1e-3), False)
P50_REQUEST = Metric("p50_request", "request latency, median", "s", _key("median_e2e_latency_ms", 1e-3), False)
P95_REQUEST = Metric("p95_request", "request latency, p95", "s", _key("p95_e2e_latency_ms", 1e-3), False)
P50_TTFT = Metric("p50_ttft", "time to first token, median", "s", _key("median_ttft_ms", 1e-3), False)
P95_TTFT = Metric("p95_ttft", "time to first token, p95", "s", _key("p95_ttft_ms", 1e-3), False)
P50_TPOT = Metric("p50_tpot", "time per output token, median", "ms", _key("median_tpot_ms"), False)
P95_TPOT = Metric("p95_tpot", "time per output token, p95", "ms", _key("p95_tpot_ms"), False)
SESSION_THROUGHPUT = Metric("sessions", "sessions", "sessions/s", _session("session_throughput"), True)
OUTPUT_THROUGHPUT = Metric("output", "output tokens", "tokens/s", _key("output_throughput"), True)
GOODPUT = Metric("goodput", "goodput", "requests/s", _ours("goodput", "goodput"), True)
PREFILL_HIT = Metric("prefill_hit", "prompt tokens that the prefill side had", "share", _prefill_hit, True)
DECODE_HIT = Metric(
    "decode_hit", "prompt tokens that the decode servers had", "share", _ours("counters", "decode", "hit_ratio"), True
)
KV_MOVED = Metric("kv_moved", "KV moved", "MB/request", _counted("kv_bytes", 1e-6))
CPU = Metric("cpu", "CPU time", "s/request", _cpu)
HOST_MEMORY = Metric("host_memory", "main memory", "GiB", _ours("counters", "host_bytes", scale=2**-30))
DEVICE_MEMORY = Metric("device_memory", "GPU memory", "GiB", _ours("counters", "device_bytes", scale=2**-30))
ERRORS = Metric("errors", "requests that failed", "share", _errors, False)

METRICS = {
    metric.name: metric
    for metric in (
        *(THROUGHPUT, P95_SESSION, P50_SESSION, P99_SESSION, P95_WAITING, P50_REQUEST, P95_REQUEST, P50_TTFT, P95_TTFT),
        *(P50_TPOT, P95_TPOT, SESSION_THROUGHPUT, OUTPUT_THROUGHPUT, GOODPUT, PREFILL_HIT, DECODE_HIT),
        *(KV_MOVED, CPU, HOST_MEMORY, DEVICE_MEMORY, ERRORS),
    )
}
COMPARED = (THROUGHPUT, P95_SESSION, P50_SESSION, P95_WAITING, P95_REQUEST, P95_TTFT, P95_TPOT)
"""What ratios are made of, the two of the paper's headline first."""
