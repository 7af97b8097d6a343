"""One run as a report sees it, and the result files that runs are read from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from psserve.bench.report.metric import METRICS
from psserve.bench.result import read_results
from psserve.errors import BenchError

Kind = Literal["concurrency", "rate"]


@dataclass(frozen=True, order=True)
class Load:
    """How much was asked at once: sessions at a time, or sessions that arrive a second."""

    kind: Kind
    value: float

    def __str__(self) -> str:
        return f"{self.value:g} {'at a time' if self.kind == 'concurrency' else 'per second'}"


@dataclass(frozen=True, order=True)
class Cell:
    """Runs that may be compared: so many modules under such a load."""

    modules: int
    load: Load


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
    line: Mapping[str, Any]
    """The whole result line."""


def read_points(paths: Iterable[Path]) -> list[Point]:
    """Runs of result files, and of all `*.jsonl` in directories. Raises BenchError if there is none."""
    files = [file for path in paths for file in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])]
    points = points_of(line for file in files for line in read_results(file))
    if not points:
        raise BenchError(f"no results in {', '.join(map(str, files)) or 'these directories: they have no *.jsonl'}")
    return points


def points_of(lines: Iterable[Mapping[str, Any]]) -> list[Point]:
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


def _load(told: Mapping[str, Any]) -> Load:
    if told.get("concurrency") is not None:
        return Load("concurrency", float(told["concurrency"]))
    return Load("rate", float(told.get("sessions_per_s") or 0.0))


def _values(line: Mapping[str, Any]) -> dict[str, float]:
    values = {}
    for name, metric in METRICS.items():
        try:
            value = metric.read(line)
        except (KeyError, TypeError):
            continue  # of another maker, or a run without this counter
        if value is not None:
            values[name] = value
    return values
