"""What a comparison runs, and in which order: A B A B, so that a drift of the machine meets all systems alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from psserve.bench.result import Cell, LoadLevel
from psserve.errors import UsageError

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
        load = self.cell.load
        return f"{self.system}.m{self.cell.modules}.{load.kind[0]}{load.value:g}.r{self.repeat + 1}"


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
    """The loads that `--concurrency` or `--rate` name. Raises UsageError."""
    if concurrency and rate:
        raise UsageError("give --concurrency (closed loop) or --rate (open loop), not both")
    if rate:
        return tuple(LoadLevel("rate", value) for value in numbers("--rate", rate, float))
    return tuple(
        LoadLevel("concurrency", at) for at in numbers("--concurrency", concurrency or DEFAULT_CONCURRENCY, int)
    )


def numbers(option: str, text: str, kind: type[int] | type[float]) -> list[Any]:
    """Numbers above 0 with commas between them, each once, in rising order. Raises UsageError."""
    try:
        values = sorted({kind(part) for part in text.split(",")})
    except ValueError:
        values = []
    if not values or not 0 < values[0] <= values[-1] < float("inf"):
        raise UsageError(f"{option} {text}: give numbers above 0, as in 1,2,4")
    return values
