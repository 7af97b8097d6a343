"""The report's words and tables, as text: the page and the Markdown file say the same.

`notes` are what a reader must know before believing the figures: what was not whole, not clean, or not measured at all;
`run_facts` and `server_settings` are on what and how the runs were made.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import tomli_w

from psserve.bench.report.summary import COMPARED, P95_SESSION, THROUGHPUT, Metric, Spread, Summary
from psserve.bench.result import Cell, warnings_of

CLAIMS = {THROUGHPUT: "more requests a second", P95_SESSION: "lower session latency, p95"}


@dataclass(frozen=True)
class Claim:
    """One ratio of the headline."""

    says: str
    ratio: str
    range: str
    is_better: bool


@dataclass(frozen=True)
class TextTable:
    """Cells as text; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def headline(summary: Summary) -> dict[str, list[Claim]]:
    """Other system -> how much better ours is, in the headline's cell."""
    claims: dict[str, list[Claim]] = {}
    for system, ratios in summary.ratios(summary.head).items():
        known = [(says, ratios[metric.name]) for metric, says in CLAIMS.items() if metric.name in ratios]
        claims[system] = [Claim(says, times(ratio.middle), _range(ratio), ratio.middle >= 1) for says, ratio in known]
    return claims


def ratio_table(summary: Summary) -> TextTable:
    """How much better ours is, cell by cell."""
    others = [system for system in summary.systems if system != summary.ours]
    pairs = [(system, metric) for system in others for metric in CLAIMS]
    rows = []
    for cell in summary.cells:
        ratios = [summary.ratio(system, cell, metric) for system, metric in pairs]
        if any(ratios):
            rows.append((cell.title, *(with_range(ratio, times) for ratio in ratios)))
    columns = ("", *(f"{system}: {metric.label}" for system, metric in pairs))
    return TextTable(f"How much better {summary.ours} is", columns, tuple(rows))


def compared_table(summary: Summary) -> TextTable:
    """All ratios of the headline's cell."""
    others = [system for system in summary.systems if system != summary.ours]
    rows = []
    for metric in COMPARED:
        ratios = [summary.ratio(system, summary.head, metric) for system in others]
        if any(ratios):
            rows.append((metric.label, *(with_range(ratio, times) for ratio in ratios)))
    return TextTable(f"{summary.head.title}: how much better {summary.ours} is", ("", *others), tuple(rows))


def figure_table(summary: Summary, cell: Cell) -> TextTable:
    """The absolute figures of a cell."""
    rows = []
    for metric in summary.told:
        spreads = [summary.values(system, cell, metric) for system in summary.systems]
        if any(spreads):
            label = metric.label if metric.unit == "share" else f"{metric.label} ({metric.unit})"
            rows.append((label, *(with_range(spread, partial(figure_text, metric)) for spread in spreads)))
    return TextTable(cell.title, ("", *summary.systems), tuple(rows))


def times(ratio: float) -> str:
    """A ratio as text, to two digits that mean something: 3.91x, 12x."""
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"


def figure_text(metric: Metric, value: float) -> str:
    """A figure as text."""
    return f"{value:.1%}" if metric.unit == "share" else number_text(value)


def number_text(value: float) -> str:
    """Three digits that mean something: 0.0123, 1.23, 123, 12300."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def _range(spread: Spread) -> str:
    return f"{times(spread.low)} to {times(spread.high)}" if spread.count > 1 else "one run"


def with_range(spread: Spread | None, form: Callable[[float], str]) -> str:
    """The middle, and in brackets the smallest and the largest where they differ; a dash for nothing."""
    if spread is None:
        return "-"
    middle, low, high = form(spread.middle), form(spread.low), form(spread.high)
    return middle if low == high else f"{middle} ({low} to {high})"


def notes(summary: Summary) -> list[str]:
    """One sentence each, the gravest first."""
    return list(dict.fromkeys((*_simulated(summary), *_partial(summary), *_warnings(summary), *_few(summary))))


def _simulated(summary: Summary) -> Iterator[str]:
    simulated = sum(point.simulated for point in summary.points)
    if simulated == len(summary.points):
        yield "Simulated: these figures were computed by psserve simulate, not measured."
    elif simulated:
        yield f"{simulated} of {len(summary.points)} runs are simulated, not measured."


def _partial(summary: Summary) -> Iterator[str]:
    partial = sum(point.partial for point in summary.points)
    if partial:
        yield f"{partial} of {len(summary.points)} runs were interrupted; they are in no figure here."


def _warnings(summary: Summary) -> Iterator[str]:
    for point in summary.points:
        if not point.partial:
            for warning in warnings_of(point.line):
                yield f"{point.system}, {point.cell.title}, repeat {point.repeat + 1}: {warning}."


def _few(summary: Summary) -> Iterator[str]:
    counts = [len(made) for system in summary.systems if (made := summary.of(system, summary.head))]
    repeats = min(counts, default=3)
    if repeats < 3 and not all(point.simulated for point in summary.points):
        yield f"Some figures rest on {repeats} repeat{'s' if repeats > 1 else ''}: take their spread as unknown."


def run_facts(summary: Summary) -> dict[str, str]:
    """Machine, versions, workload, dates and commands; runs that differ are told as a list."""
    told = [point.line["psserve"] for point in summary.points]
    simulated = [line for line in told if line.get("simulated")]
    machines = [line.get("machine") or {} for line in told]
    found = {
        "machine": _each(_machine(machine) for machine in machines),
        "software": _each(_software(machine) for machine in machines),
        "workload": _each(_pairs(line.get("workload") or {}) for line in told),
        "simulated": _each(f"{line['system']}: {_pairs(line.get('settings') or {})}" for line in simulated),
        "runs": _runs(summary),
        "when": _when([float(line["started"]) for line in told if line.get("started")]),
        "command": _each(str(line.get("command") or "") for line in told),
    }
    return {label: text for label, text in found.items() if text}


def _machine(machine: Mapping[str, Any]) -> str:
    if not machine:
        return ""
    gpus = ", ".join(machine.get("gpus") or ()) or "no GPU"
    return f"{machine.get('cpu')}, {machine.get('cores')} cores, {machine.get('memory_gib')} GiB, {gpus}"


def _software(machine: Mapping[str, Any]) -> str:
    versions = {"psserve": machine.get("psserve"), **(machine.get("versions") or {}), "Python": machine.get("python")}
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def _runs(summary: Summary) -> str:
    repeats = max(point.repeat for point in summary.points) + 1
    requests = sum(int(point.line.get("completed") or 0) for point in summary.points)
    return f"{len(summary.points)}, up to {repeats} of each kind; {requests} requests answered"


def _when(started: list[float]) -> str:
    if not started:
        return ""
    first, last = (time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when)) for when in (min(started), max(started)))
    return first if first == last else f"{first} to {last}"


def _each(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))


def server_settings(summary: Summary) -> dict[str, str]:
    """System -> its servers' commands or its fleet.toml, of its first run. Ports and folders differ in the others."""
    found: dict[str, str] = {}
    for point in summary.points:
        told = point.line["psserve"]
        if text := _text(told.get("settings") or {}):
            found.setdefault(told["system"], text)
    return found


def _text(settings: Mapping[str, Any]) -> str:
    if commands := settings.get("commands"):
        return "\n".join(f"{name}: {shlex.join(command)}" for name, command in commands.items())
    return tomli_w.dumps(settings["fleet"]).strip() if "fleet" in settings else ""
