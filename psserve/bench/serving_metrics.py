"""Metrics of requests by the names and definitions of SGLang's `bench_serving` (sglang/benchmark/serving.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from psserve.bench.record import RequestRecord, seconds_per_token

PERCENTILES = (90, 95, 99)


def serving_metrics(records: Sequence[RequestRecord], duration_s: float) -> dict[str, Any]:
    """The measured keys of a result line. Failed requests count in none of them; `psserve.errors` has those."""
    good = [record for record in records if record.error is None]
    inputs, outputs = sum(r.prompt_tokens for r in good), sum(r.output_tokens for r in good)
    latencies = [record.done_s - record.sent_s for record in good]
    rate = 1 / duration_s if duration_s > 0 else 0.0
    peak_tokens, peak_requests = _peaks(good)
    return {
        "duration": duration_s,
        "completed": len(good),
        "total_input_tokens": inputs,
        "total_input_text_tokens": inputs,
        "total_input_vision_tokens": 0,
        "total_output_tokens": outputs,
        "total_output_tokens_retokenized": None,  # tokens are the server's count
        "request_throughput": len(good) * rate,
        "input_throughput": inputs * rate,
        "output_throughput": outputs * rate,
        "total_throughput": (inputs + outputs) * rate,
        **distribution(latencies, "e2e_latency"),
        **distribution([r.first_s - r.sent_s for r in good if r.first_s is not None], "ttft"),
        **distribution([took for r in good if (took := seconds_per_token(r)) is not None], "tpot"),
        **distribution([late - early for r in good for early, late in pairwise(r.chunk_s)], "itl"),
        "concurrency": sum(latencies) * rate,
        "accept_length": None,
        "max_output_tokens_per_s": peak_tokens,
        "max_concurrent_requests": peak_requests,
        "cache_report": _cache_report(good),
    }


def distribution(seconds: Sequence[float], name: str) -> dict[str, float]:
    """`mean_NAME_ms`, `median_`, `std_`, `p90_`, `p95_` and `p99_`; all 0 where there is no value, as bench_serving."""
    values = np.asarray(seconds or [0.0]) * 1000
    return {
        f"mean_{name}_ms": float(values.mean()),
        f"median_{name}_ms": float(np.median(values)),
        f"std_{name}_ms": float(values.std()),
        **{f"p{p}_{name}_ms": float(np.percentile(values, p)) for p in PERCENTILES},
    }


def _cache_report(good: Sequence[RequestRecord]) -> dict[str, Any]:
    prompt, cached = sum(r.prompt_tokens for r in good), sum(r.cached_tokens for r in good)
    return {
        "total_prompt_tokens": prompt,
        "total_cached_tokens": cached,
        "cache_hit_rate_pct": round(cached / prompt * 100, 2) if prompt else 0.0,
        "device_cached_tokens": None,  # usage does not say where
        "host_cached_tokens": None,
        "storage_cached_tokens": None,
        "storage_backend": None,
    }


def _peaks(good: Sequence[RequestRecord]) -> tuple[float, int]:
    """Most pieces (bench_serving calls them tokens) and most requests in any one second since the first request."""
    if not good:
        return 0.0, 0
    start = min(record.sent_s for record in good)
    seconds = math.ceil(max(record.done_s for record in good) - start) + 1
    pieces, requests = np.zeros(seconds), np.zeros(seconds)
    for record in good:
        for piece in record.chunk_s:
            pieces[int(piece - start)] += 1
        requests[int(record.sent_s - start) : int(record.done_s - start) + 1] += 1
    return float(pieces.max()), int(requests.max())
