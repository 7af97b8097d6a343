"""Result lines made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psserve.bench.metrics import summarise
from psserve.bench.record import RequestRecord, mean_seconds
from psserve.bench.result import ResultLine, RunFacts, result_line
from tests.bench.records import record

SPANS = {"prefill": (0.1, 0.4), "transfer": (0.4, 0.5), "decode": (0.5, 1.0)}


def requests(seconds: float, count: int = 4) -> list[RequestRecord]:
    """Sessions of one request each that follow each other; the first token comes after a fifth of the time."""
    return [
        record(n * seconds, session=f"s{n}", first_s=(n + 0.2) * seconds, done_s=(n + 1) * seconds, spans=SPANS)
        for n in range(count)
    ]


def line(
    system: str,
    seconds: float,
    *,
    repeat: int = 0,
    concurrency: int = 4,
    limit: int | None = None,
    rate: float = 1.0,
    modules: Sequence[str] = ("math",),
    **facts: Any,
) -> ResultLine:
    """The line of a run whose sessions take `seconds` each, one after the other. `limit`: they arrive at `rate`."""
    made = requests(seconds)
    told = RunFacts(
        run=f"{system}-{repeat}",
        system=system,
        modules=tuple(modules),
        workload={"preset": "react", "seed": 1},
        load={"concurrency": concurrency} if limit is None else {"limit": limit, "sessions_per_s": rate},
        command="psserve bench compare",
        started=1_700_000_000.0,
        extra={"repeat": repeat, "phases_s": mean_seconds(made)},
        **facts,
    )
    return result_line(summarise(made), told)
