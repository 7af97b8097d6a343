"""From what became of the requests of a run to the measured part of its result line.

Pure: the load generator and the simulator are summarised alike. Requests, by the names and definitions of SGLang's
`bench_serving` (sglang/benchmark/serving.py); whole sessions, which is what an agent's user waits for; how many kept a
service level objective; and whether the load generator kept up: how late it sent what was due.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np

from psserve.bench.record import INTERRUPTED, RequestRecord, seconds_per_token
from psserve.errors import UsageError

_MESSAGES = 20
"""Different errors that a result line tells; it counts all."""
PERCENTILES = (90, 95, 99)
LATE_MS = 100.0
"""A client whose 95th percentile is later than this distorts what it measures."""
SENT_SHARE = 0.95
"""Of the rate asked for; sessions that were sent more slowly than this make another load than was asked for."""


def summarise(records: Sequence[RequestRecord], slo: Slo | None = None) -> dict[str, Any]:
    """The measured keys of `bench_serving`, and ours in `psserve`:

    - `sessions`: see session_metrics
    - `errors`: `requests` that failed, `interrupted` by the user, and `by_message`, the most frequent ones
    - `goodput`: see Slo.report; only with an objective
    - `client`: see client_metrics
    - `per_module`: module -> the measured keys of bench_serving for its requests alone, over the same duration
    - `other_lengths`: answers that are not as long as was asked: other work than the workload's
    - `warmup_requests`: how many were left out of everything else

    `duration` is from the first counted request to the last end of one, in seconds.
    """
    counted = [record for record in records if not record.warmup]
    duration_s = _duration(counted)
    modules: dict[str, list[RequestRecord]] = defaultdict(list)
    for record in counted:
        modules[record.module].append(record)
    ours: dict[str, Any] = {
        "sessions": session_metrics(counted, duration_s),
        "errors": _errors(counted),
        "client": client_metrics(counted),
        "per_module": {name: serving_metrics(modules[name], duration_s) for name in sorted(modules)},
        "other_lengths": sum(map(_other_length, counted)),
        "warmup_requests": len(records) - len(counted),
    }
    if slo is not None:
        ours["goodput"] = slo.report(counted, duration_s)
    return {**serving_metrics(counted, duration_s), "psserve": ours}


def _duration(counted: Sequence[RequestRecord]) -> float:
    if not counted:
        return 0.0
    return max(record.done_s for record in counted) - min(record.sent_s for record in counted)


def _errors(counted: Sequence[RequestRecord]) -> dict[str, Any]:
    messages = Counter(record.error for record in counted if record.error is not None)
    interrupted = messages.pop(INTERRUPTED, 0)
    return {
        "requests": messages.total(),
        "interrupted": interrupted,
        "by_message": dict(messages.most_common(_MESSAGES)),
    }


def _other_length(record: RequestRecord) -> bool:
    return record.error is None and record.asked_tokens not in (None, record.output_tokens)


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


def session_metrics(records: Sequence[RequestRecord], duration_s: float) -> dict[str, Any]:
    """Sessions that ended well, failed or were interrupted, and of the first kind latency and waiting time.

    `session_latency`: from a session's first request (its arrival, where it had to wait for a place) to its last
    answer, think and tool times included.
    `session_waiting`: the same without them: in each step, from the first request sent to the last answer.
    """
    sessions: dict[str, list[RequestRecord]] = defaultdict(list)
    for record in records:
        sessions[record.session].append(record)
    errors = [{record.error for record in made} for made in sessions.values()]
    ended = [made for made in sessions.values() if all(record.error is None for record in made)]
    interrupted = sum(kinds <= {None, INTERRUPTED} and INTERRUPTED in kinds for kinds in errors)
    return {
        "completed": len(ended),
        "failed": len(sessions) - len(ended) - interrupted,
        "interrupted": interrupted,
        "session_throughput": len(ended) / duration_s if duration_s > 0 else 0.0,
        **distribution([_whole_latency(made) for made in ended], "session_latency"),
        **distribution([_waiting(made) for made in ended], "session_waiting"),
    }


def _whole_latency(made: Sequence[RequestRecord]) -> float:
    arrived = min((record.arrived_s for record in made if record.arrived_s is not None), default=None)
    return _latency(made) if arrived is None else max(record.done_s for record in made) - arrived


def _latency(made: Sequence[RequestRecord]) -> float:
    return max(record.done_s for record in made) - min(record.sent_s for record in made)


def _waiting(made: Sequence[RequestRecord]) -> float:
    steps: dict[int, list[RequestRecord]] = defaultdict(list)
    for record in made:
        steps[record.step].append(record)
    return sum(map(_latency, steps.values()))


@dataclass(frozen=True)
class Slo:
    """Limits in milliseconds, each by its definition in the result line; None where nothing is asked."""

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None

    @classmethod
    def parse(cls, text: str) -> Slo:
        """`ttft=2000,tpot=50,e2e=30000`, any of the three. Raises UsageError."""
        known = [field.name for field in fields(cls)]
        limits: dict[str, float] = {}
        for part in text.split(","):
            name, _, value = part.strip().partition("=")
            if name not in known or name in limits:
                raise UsageError(f"--slo {text}: give each of {', '.join(known)} at most once, as in ttft=2000,tpot=50")
            try:
                limits[name] = float(value)
            except ValueError:
                raise UsageError(f"--slo {text}: {name} must be milliseconds, not {value!r}") from None
            if not 0 < limits[name] < float("inf"):
                raise UsageError(f"--slo {text}: {name} must be above 0")
        return cls(**limits)

    def met(self, record: RequestRecord) -> bool:
        """Whether a request kept all limits; a failed one never does."""
        if record.error is not None or record.first_s is None:
            return False
        took = {
            "ttft": record.first_s - record.sent_s,
            "tpot": seconds_per_token(record) or 0.0,  # an answer of one token has none to wait for
            "e2e": record.done_s - record.sent_s,
        }
        limits = {field.name: getattr(self, field.name) for field in fields(self)}
        return all(limit is None or took[name] * 1000 <= limit for name, limit in limits.items())

    def report(self, records: Sequence[RequestRecord], duration_s: float) -> dict[str, object]:
        """Goodput: good requests a second, and their share of all that were sent."""
        good = sum(map(self.met, records))
        return {
            "slo_ms": {field.name: getattr(self, field.name) for field in fields(self)},
            "good_requests": good,
            "goodput": good / duration_s if duration_s else 0.0,
            "good_request_fraction": good / len(records) if records else 0.0,
        }


def client_metrics(records: Sequence[RequestRecord]) -> dict[str, Any]:
    """Lag of the client (sent - due), the rate of sessions asked for and sent, and `warnings` in words."""
    lag = distribution([max(0.0, record.sent_s - record.due_s) for record in records], "client_lag")
    starts = [record for record in records if record.step == 0 and record.call == 0]
    asked, sent = _rate([record.due_s for record in starts]), _rate([record.sent_s for record in starts])
    warnings = []
    if lag["p95_client_lag_ms"] > LATE_MS:
        warnings.append(
            f"the client was the bottleneck: 5% of the requests were sent {lag['p95_client_lag_ms']:.0f} ms late or"
            " more; latencies are not the server's alone: use a lower load, or several clients"
        )
    latest = max((record.sent_s - record.due_s for record in starts), default=0.0)
    if asked and sent and sent < asked * SENT_SHARE and latest * 1000 > LATE_MS:
        warnings.append(f"the client sent {sent:.4g} sessions/s instead of {asked:.4g}: more than this client can send")
    return {**lag, "asked_sessions_per_s": asked, "sent_sessions_per_s": sent, "warnings": warnings}


def _rate(times: Sequence[float]) -> float | None:
    """Starts a second; None where they are too few or all at once."""
    span = max(times) - min(times) if len(times) > 1 else 0.0
    return (len(times) - 1) / span if span > 0 else None
