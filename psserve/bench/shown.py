"""A result line for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console

from psserve.console import show, table

STATISTICS = ("mean", "median", "p90", "p95", "p99")
LATENCIES = (
    ("session, tools included", "session_latency"),
    ("session, waiting only", "session_waiting"),
    ("request", "e2e_latency"),
    ("time to first token", "ttft"),
    ("time per output token", "tpot"),
    ("between two pieces", "itl"),
)


def show_line(line: Mapping[str, Any], out: Console) -> None:
    """Print what was run, what came of it, latencies, and each module's part."""
    ours = line["psserve"]
    show(table(("figure", ">value"), _figures(line, ours)), out)
    out.print()
    show(table(("milliseconds", *(f">{name}" for name in STATISTICS)), _latencies({**line, **ours["sessions"]})), out)
    out.print()
    show(table(("module", ">requests", ">prompt tokens", ">cached", ">p95 TTFT ms"), _modules(ours)), out)


def warnings_of(line: Mapping[str, Any]) -> list[str]:
    """What a reader of the figures must know."""
    ours, said = line["psserve"], []
    errors = ours["errors"]
    if errors["requests"]:
        often, count = next(iter(errors["by_message"].items()))
        said.append(f"{errors['requests']} requests failed, and ended their sessions; most often ({count}): {often}")
    if ours["other_lengths"]:
        said.append(f"{ours['other_lengths']} answers were not as long as asked: the server does not obey ignore_eos")
    if ours["partial"]:
        said.append("the run was interrupted: these figures are of what was done until then")
    return [*said, *ours["client"]["warnings"]]


def _figures(line: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    sessions = ours["sessions"]
    yield "run", ours["run"]
    yield "seconds", f"{line['duration']:.1f}"
    yield "sessions", f"{sessions['completed']}"
    yield "sessions/s", f"{sessions['session_throughput']:.3f}"
    yield "requests", f"{line['completed']}"
    yield "requests/s", f"{line['request_throughput']:.2f}"
    yield "input tokens/s", f"{line['input_throughput']:.0f}"
    yield "output tokens/s", f"{line['output_throughput']:.1f}"
    yield "cached input tokens", f"{line['cache_report']['cache_hit_rate_pct']:.1f}%"
    if counters := ours.get("counters"):
        for side in ("prefill", "decode"):
            ratio = counters[side]["hit_ratio"]
            yield f"{side} servers' hit ratio", "-" if ratio is None else f"{ratio:.1%}"
        yield "KV moved, MB", f"{counters['kv_bytes'] / 1e6:.1f}"
        yield "CPU cores busy", f"{counters['cpu_cores'] or 0:.2f}"
        yield "host memory, GB", f"{counters['host_bytes'] / 1e9:.2f}"
    if goodput := ours.get("goodput"):
        yield "goodput, requests/s", f"{goodput['goodput']:.2f} ({goodput['good_request_fraction']:.1%})"
    yield "failed requests", f"{ours['errors']['requests']}"


def _latencies(values: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    for title, name in LATENCIES:
        yield title, *(f"{values[f'{statistic}_{name}_ms']:.1f}" for statistic in STATISTICS)


def _modules(ours: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    for name, values in ours["per_module"].items():
        cached = f"{values['cache_report']['cache_hit_rate_pct']:.1f}%"
        yield (
            name,
            str(values["completed"]),
            str(values["total_input_tokens"]),
            cached,
            f"{values['p95_ttft_ms']:.1f}",
        )
