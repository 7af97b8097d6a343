"""From what became of the requests of a run to the measured part of its result line.

Pure: the load generator and the simulator are summarised alike.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from psserve.bench.client_lag import client_metrics
from psserve.bench.record import INTERRUPTED, RequestRecord
from psserve.bench.serving_metrics import serving_metrics
from psserve.bench.session_metrics import session_metrics
from psserve.bench.slo import Slo

MESSAGES = 20
"""Different errors that a result line tells; it counts all."""


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
        "by_message": dict(messages.most_common(MESSAGES)),
    }


def _other_length(record: RequestRecord) -> bool:
    return record.error is None and record.asked_tokens not in (None, record.output_tokens)
