"""Simulated runs as a table for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console

from psserve.bench.result import Line
from psserve.console import show, table

COLUMNS = (
    *("system", ">modules", ">load", ">sessions/s", ">requests/s", ">p50 session s", ">p95 session s"),
    *(">p95 TTFT s", ">p50 TPOT ms", ">prefill hits", ">busy"),
)


def show_lines(lines: Sequence[Line], out: Console) -> None:
    """One line a run, under a title that says what these figures are."""
    out.print("simulated, not measured")
    show(table(COLUMNS, _rows(lines)), out)


def _rows(lines: Iterable[Line]) -> Iterable[tuple[str, ...]]:
    for line in lines:
        ours = line["psserve"]
        sessions = ours["sessions"]
        busy = ours["counters"]["busy_share"]
        yield (
            ours["system"],
            str(len(ours["modules"])),
            _load(**ours["load"]),
            f"{sessions['session_throughput']:.3f}",
            f"{line['request_throughput']:.2f}",
            f"{sessions['median_session_latency_ms'] / 1000:.2f}",
            f"{sessions['p95_session_latency_ms'] / 1000:.2f}",
            f"{line['p95_ttft_ms'] / 1000:.3f}",
            f"{line['median_tpot_ms']:.2f}",
            f"{line['cache_report']['cache_hit_rate_pct']:.1f}%",
            f"{sum(busy) / len(busy):.0%}",
        )


def _load(concurrency: int | None, sessions_per_s: float | None, **_: Any) -> str:
    if concurrency is not None:
        return f"{concurrency} at a time"
    return "trace" if sessions_per_s is None else f"{sessions_per_s:g}/s"
