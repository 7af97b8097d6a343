"""The runs of a report, and repeats put together: what a system did in a cell, and how much better one is than another.

Runs are read from result files, by metrics: where a figure stands in a line, its unit, and which way is better. What
repeats have told is a middle, with its spread.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from psserve.bench.result import Cell, LoadLevel, ResultLine, read_results
from psserve.errors import BenchError, UsageError


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


ORDER = ("one-pool", "shared", "disaggregated", "colocated", "lora")
"""In which systems are shown; others follow by name. The first one there is, is ours."""


@dataclass(frozen=True)
class Point:
    """One run."""

    system: str
    cell: Cell
    repeat: int
    values: Mapping[str, float]
    """By the names of METRICS; without those that the run does not tell."""
    phases: Mapping[str, float]
    """Mean seconds that a request spent in each; empty where servers told nothing."""
    simulated: bool
    partial: bool
    line: ResultLine
    """The whole result line."""


def read_points(paths: Iterable[Path]) -> list[Point]:
    """Runs of result files, and of all `*.jsonl` in directories. Raises BenchError if there is none."""
    files = [file for path in paths for file in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])]
    points = points_of(line for file in files for line in read_results(file))
    if not points:
        raise BenchError(f"no results in {', '.join(map(str, files)) or 'these directories: they have no *.jsonl'}")
    return points


def points_of(lines: Iterable[ResultLine]) -> list[Point]:
    """Result lines as runs. Those that do not say which repeat they are count as the next one of their kind."""
    points: list[Point] = []
    seen: dict[tuple[str, Cell], int] = {}
    for line in lines:
        told = line["psserve"]
        key = (str(told["system"]), Cell(len(told["modules"]), _load(told["load"])))
        repeat = int(told.get("repeat", seen.get(key, 0)))
        seen[key] = repeat + 1
        points.append(
            Point(
                *key,
                repeat,
                _values(line),
                told.get("phases_s") or {},
                bool(told.get("simulated")),
                bool(told.get("partial")),
                line,
            )
        )
    return points


def _load(told: Mapping[str, Any]) -> LoadLevel:
    if told.get("concurrency") is not None:
        return LoadLevel("concurrency", float(told["concurrency"]))
    rate = float(told.get("sessions_per_s") or 0.0)
    return LoadLevel("rate", rate) if told.get("limit") is None else LoadLevel("limit", float(told["limit"]), rate)


def _values(line: ResultLine) -> dict[str, float]:
    values = {}
    for name, metric in METRICS.items():
        try:
            value = metric.read(line)
        except (KeyError, TypeError):
            continue  # of another maker, or a run without this counter
        if value is not None:
            values[name] = value
    return values


@dataclass(frozen=True)
class Spread:
    """The middle one of the repeats, the smallest and the largest."""

    middle: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Summary:
    """All runs of a report."""

    points: tuple[Point, ...]
    systems: tuple[str, ...]
    cells: tuple[Cell, ...]
    ours: str
    head: Cell
    """The one that the headline is about."""

    def values(self, system: str, cell: Cell, metric: Metric) -> Spread | None:
        """A figure of a system in a cell; None where no run tells it."""
        told = [point.values[metric.name] for point in self.of(system, cell) if metric.name in point.values]
        return Spread.of(told) if told else None

    def of(self, system: str, cell: Cell) -> list[Point]:
        """The whole runs of a system in a cell."""
        return [point for point in self.points if (point.system, point.cell) == (system, cell) and not point.partial]

    def ratio(self, system: str, cell: Cell, metric: Metric) -> Spread | None:
        """How much better ours is than `system`, above 1 if it is: one ratio a repeat, run against run of that repeat.

        None where no repeat has both, or one of them did nothing.
        """
        return self.between(cell, system, cell, metric)

    def between(self, our_cell: Cell, system: str, cell: Cell, metric: Metric) -> Spread | None:
        """The same, with ours in a cell of its own."""
        ours, theirs = self._by_repeat(self.ours, our_cell, metric), self._by_repeat(system, cell, metric)
        ratios = [_better(ours[repeat], theirs[repeat], metric) for repeat in sorted(ours.keys() & theirs.keys())]
        finite = [ratio for ratio in ratios if ratio is not None]
        return Spread.of(finite) if finite else None

    def ratios(self, cell: Cell) -> dict[str, dict[str, Spread]]:
        """Other system -> metric -> ratio."""
        others = {
            system: {metric.name: ratio for metric in COMPARED if (ratio := self.ratio(system, cell, metric))}
            for system in self.systems
            if system != self.ours
        }
        return {system: ratios for system, ratios in others.items() if ratios}

    def phases(self, system: str, cell: Cell) -> dict[str, float]:
        """Mean seconds a request spent in each phase, over the repeats; {} where servers told nothing."""
        told: dict[str, list[float]] = defaultdict(list)
        for point in self.of(system, cell):
            for phase, seconds in point.phases.items():
                told[phase].append(seconds)
        return {phase: fmean(seconds) for phase, seconds in told.items()}

    @property
    def curve(self) -> tuple[Cell, ...]:
        """The cells that differ from the headline's in the load's value alone, by load."""
        head = self.head
        same = (head.modules, head.load.kind, head.load.rate)
        return tuple(cell for cell in self.cells if (cell.modules, cell.load.kind, cell.load.rate) == same)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of modules that were tried."""
        return tuple(sorted({cell.modules for cell in self.cells}))

    @property
    def told(self) -> tuple[Metric, ...]:
        """The metrics that any run tells."""
        return tuple(metric for metric in METRICS.values() if any(metric.name in point.values for point in self.points))

    def _by_repeat(self, system: str, cell: Cell, metric: Metric) -> Mapping[int, float]:
        points = self.of(system, cell)
        return {point.repeat: point.values[metric.name] for point in points if metric.name in point.values}


def summarise_points(points: Sequence[Point], modules: int | None = None, load: float | None = None) -> Summary:
    """Put runs together. The headline is about the cell of `modules` and `load`: by default the largest number of
    modules, and the highest load at which two systems have a whole run. Raises UsageError where nothing of that ran."""
    systems = sorted({point.system for point in points}, key=_place)
    cells = tuple(sorted({point.cell for point in points}))
    whole = {(point.system, point.cell) for point in points if not point.partial}
    wanted = [
        cell
        for cell in cells
        if (modules is None or cell.modules == modules) and (load is None or math.isclose(cell.load.value, load))
    ]
    if not wanted:
        there = "; ".join(f"{cell.modules} modules, {cell.load}" for cell in cells)
        raise UsageError(f"the headline cannot be about what has not run; there are: {there}")
    compared = [cell for cell in wanted if sum((system, cell) in whole for system in systems) > 1]
    head = (compared or wanted)[-1]
    return Summary(tuple(points), tuple(systems), cells, systems[0], head)


def _place(system: str) -> tuple[int, str]:
    return (ORDER.index(system) if system in ORDER else len(ORDER), system)


def _better(ours: float, theirs: float, metric: Metric) -> float | None:
    good, bad = (ours, theirs) if metric.higher_is_better else (theirs, ours)
    return good / bad if bad > 0 and good > 0 else None
