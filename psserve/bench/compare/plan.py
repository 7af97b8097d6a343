"""What a comparison runs and in which order, and the folder that keeps its results.

Systems run in turns, A B A B, so that a drift of the machine meets all of them alike. Results are kept as they come, so
that an interruption loses nothing:

compare.json    the arguments that it was started with
results.jsonl   one result line a run, appended and synced when the run ends
records/        the requests of each run, by the run's name
report.*        made from the results
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psserve.bench.result import Cell, LoadLevel, ResultLine, read_results
from psserve.errors import BenchError, UsageError

DEFAULT_CONCURRENCY = "4"


@dataclass(frozen=True)
class Run:
    """One run of a comparison."""

    system: str
    cell: Cell
    repeat: int

    @property
    def name(self) -> str:
        """Also a file's name: shared.m4.c8.r1."""
        return f"{self.system}.m{self.cell.modules}.{self.cell.load.name}.r{self.repeat + 1}"


@dataclass(frozen=True)
class Visit:
    """Runs one after the other on one system, which is started for them."""

    system: str
    modules: int
    runs: tuple[Run, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A comparison. Every combination runs in every repeat."""

    systems: tuple[str, ...]
    sizes: tuple[int, ...]
    """Numbers of modules."""
    loads: tuple[LoadLevel, ...]
    repeats: int

    def visits(self) -> Iterator[Visit]:
        """All systems in turn, then the next repeat."""
        for repeat in range(self.repeats):
            for modules in self.sizes:
                for system in self.systems:
                    runs = tuple(Run(system, Cell(modules, load), repeat) for load in self.loads)
                    yield Visit(system, modules, runs)

    @property
    def runs(self) -> list[Run]:
        """All of them, in order."""
        return [run for visit in self.visits() for run in visit.runs]


def loads_of(concurrency: str | None, rate: str | None) -> tuple[LoadLevel, ...]:
    """The loads that `--concurrency` and `--rate` name; with both, every rate under every limit. Raises UsageError."""
    rates = numbers("--rate", rate, float) if rate else []
    if rates and not concurrency:
        return tuple(LoadLevel("rate", value) for value in rates)
    limits = numbers("--concurrency", concurrency or DEFAULT_CONCURRENCY, int)
    if rates:
        return tuple(LoadLevel("limit", limit, value) for value in rates for limit in limits)
    return tuple(LoadLevel("concurrency", at) for at in limits)


def numbers(option: str, text: str, kind: type[int] | type[float]) -> list[Any]:
    """Numbers above 0 with commas between them, each once, in rising order. Raises UsageError."""
    try:
        values = sorted({kind(part) for part in text.split(",")})
    except ValueError:
        values = []
    if not values or not 0 < values[0] <= values[-1] < float("inf"):
        raise UsageError(f"{option} {text}: give numbers above 0, as in 1,2,4")
    return values


SETTINGS = "compare.json"
RESULTS = "results.jsonl"


@dataclass(frozen=True)
class ComparisonFolder:
    """A comparison's folder."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, arguments: Sequence[str]) -> ComparisonFolder:
        """A new one. Raises UsageError if the folder holds a comparison already."""
        store = cls(folder)
        if store.results.exists():
            raise UsageError(f"{folder} holds results: --resume {folder} goes on with them, or choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SETTINGS).write_text(json.dumps({"arguments": list(arguments)}) + "\n")
        return store

    @property
    def results(self) -> Path:
        return self.folder / RESULTS

    def records(self, run: Run) -> Path:
        """Where the requests of `run` are kept."""
        return self.folder / "records" / f"{run.name}.jsonl"

    def lines(self) -> list[ResultLine]:
        """The result lines so far. Raises BenchError for a file that is damaged."""
        return read_results(self.results) if self.results.exists() else []

    def done(self) -> set[str]:
        """Names of the runs that are whole."""
        return {line["psserve"]["run"] for line in self.lines() if not line["psserve"]["partial"]}


def saved_arguments(folder: Path) -> list[str]:
    """What the comparison in `folder` was started with. Raises BenchError where there is none."""
    path = folder / SETTINGS
    try:
        arguments = json.loads(path.read_text())["arguments"]
    except FileNotFoundError:
        raise BenchError(f"{folder} holds no comparison to go on with: there is no {SETTINGS}") from None
    except (ValueError, KeyError, TypeError):
        raise BenchError(f"{path} is damaged: start the comparison anew, with another --out") from None
    return [str(argument) for argument in arguments]
