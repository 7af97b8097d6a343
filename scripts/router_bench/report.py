"""The figures of scripts/bench_router.py from what was measured, as JSON and as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from measuring.report import percentile

from router_bench.measures import Throughput

PERCENTS = {"p50_ms": 50, "p99_ms": 99}


def latency_figures(times: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Router -> percentiles in ms, and what they are above those of "direct". `times`: router -> seconds."""
    figures: dict[str, dict[str, float]] = {}
    for name, values in times.items():
        row = {figure: 1_000 * percentile(values, percent) for figure, percent in PERCENTS.items()}
        if name != "direct":
            direct = times["direct"]
            row |= {f"added_{figure}": row[figure] - 1_000 * percentile(direct, p) for figure, p in PERCENTS.items()}
        figures[name] = {figure: round(value, 3) for figure, value in row.items()}
    return figures


def throughput_figures(rounds: Sequence[Throughput]) -> dict[str, float]:
    """Medians of the rounds. Without a router there is only the rate: what client and workers can do."""
    figures = {"requests_per_s": round(median([one.requests / one.seconds for one in rounds]))}
    if not all(one.cpu_s for one in rounds):
        return figures
    return figures | {
        "cpu_ms": round(median([1_000 * one.cpu_s / one.requests for one in rounds]), 3),
        "per_core": round(median([one.requests / one.cpu_s for one in rounds])),
        "cores_used": round(median([one.cpu_s / one.seconds for one in rounds]), 2),
    }


def lines(document: Mapping[str, Any]) -> list[str]:
    """The document's figures for people to read."""
    text = []
    for load, rows in document["latency"].items():
        text += ["", f"{load}: ms at {document['rate']:g} requests/s", _row("", "p50", "p99", "added p50", "added p99")]
        for name, row in rows.items():
            text.append(_row(name, *(row.get(key) for key in ("p50_ms", "p99_ms", "added_p50_ms", "added_p99_ms"))))
    text += ["", f"small requests, {document['connections']} connections never idle"]
    text.append(_row("", "requests/s", "CPU ms each", "per core", "cores used"))
    for name, row in document["throughput"].items():
        text.append(_row(name, *(row.get(key) for key in ("requests_per_s", "cpu_ms", "per_core", "cores_used"))))
    text += ["", f"{document['streams_at_once']} streams at once, twice: MiB"]
    text.append(_row("", "before", "during", "after", "KiB a stream", "us a chunk", "late s"))
    for name, row in document["streams"].items():
        during, after = (" ".join(f"{value:.0f}" for value in row[key]) for key in ("during", "after"))
        numbers = (round(row[key], 1) for key in ("per_stream_kib", "chunk_us", "late_s"))
        text.append(_row(name, round(row["before"]), during, after, *numbers))
    return text


def verdicts(document: Mapping[str, Any]) -> list[str]:
    """psserve's figures beside the targets, one a line."""
    small = document["latency"]["small, whole"]["psserve"]
    per_core = {name: row.get("per_core", math.nan) for name, row in document["throughput"].items()}
    text = [
        _verdict("added to the median, ms", small["added_p50_ms"], most=2),
        _verdict("added to the 99th percentile, ms", small["added_p99_ms"], most=10),
        _verdict("small requests a second and core", per_core["psserve"], least=1_500),
    ]
    if "mini_lb" in per_core:
        text.append(_verdict("times those of mini_lb", round(per_core["psserve"] / per_core["mini_lb"], 2), least=1))
    return text


def _verdict(name: str, value: float, *, least: float = -math.inf, most: float = math.inf) -> str:
    target = f"<= {most:g}" if most < math.inf else f">= {least:g}"
    return f"{name}: {value:g} ({target}: {'met' if least <= value <= most else 'MISSED'})"


def _row(*cells: object) -> str:
    name, *rest = ("" if cell is None else str(cell) for cell in cells)
    return (f"{name:14}" + "".join(f"{cell:>18}" for cell in rest)).rstrip()
