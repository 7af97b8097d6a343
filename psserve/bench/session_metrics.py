"""Metrics of whole sessions: what an agent's user waits for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from psserve.bench.record import INTERRUPTED, RequestRecord
from psserve.bench.serving_metrics import distribution


def session_metrics(records: Sequence[RequestRecord], duration_s: float) -> dict[str, Any]:
    """Sessions that ended well, failed or were interrupted, and of the first kind latency and waiting time.

    `session_latency`: from a session's first request to its last answer, think and tool times included.
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
        **distribution([_latency(made) for made in ended], "session_latency"),
        **distribution([_waiting(made) for made in ended], "session_waiting"),
    }


def _latency(made: Sequence[RequestRecord]) -> float:
    return max(record.done_s for record in made) - min(record.sent_s for record in made)


def _waiting(made: Sequence[RequestRecord]) -> float:
    steps: dict[int, list[RequestRecord]] = defaultdict(list)
    for record in made:
        steps[record.step].append(record)
    return sum(map(_latency, steps.values()))
