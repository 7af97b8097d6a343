"""What the options of a comparison mean. Everything here raises UsageError for what makes no sense."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from psserve.bench.compare.systems import Systems
from psserve.bench.measure.target import Target, target_of_urls
from psserve.bench.report.point import Load
from psserve.bench.systems.spec import SystemSpec
from psserve.bench.systems.start import SYSTEMS
from psserve.errors import UsageError
from psserve.zoo import Zoo, find_zoo

DEFAULT_SYSTEMS = ("shared", "disaggregated")
DEFAULT_CONCURRENCY = "4"


def started_names(systems: Sequence[str], against: Sequence[str]) -> tuple[str, ...]:
    """The systems that we start, each once: those asked for, else the paper's two, else none beside URLs."""
    names = tuple(dict.fromkeys(systems or (() if against else DEFAULT_SYSTEMS)))
    if unknown := [name for name in names if name not in SYSTEMS]:
        raise UsageError(f"--system {unknown[0]}: there are {', '.join(SYSTEMS)}")
    return names


def systems_of(
    names: Sequence[str],
    against: Sequence[str],
    modules: tuple[str, ...],
    key: str | None,
    spec: Callable[[Path, tuple[str, ...]], SystemSpec],
    zoo: Path | None,
) -> Systems:
    """The systems `names`, and those of `against` (NAME=URL each). No modules: all of the zoo.

    `spec` makes the side conditions for a zoo and modules. Also raises ZooError.
    """
    if not all(modules) or len(set(modules)) < len(modules):
        raise UsageError(f"--models {','.join(modules)}: give each name once, with commas between")
    urls: dict[str, Target] = {}
    for text in against:
        name, equals, url = text.partition("=")
        if not equals or not name or name in (*urls, *names):
            raise UsageError(f"--against {text}: give NAME=URL, and each name once")
        urls[name] = target_of_urls((url,), key)
    if not names:
        if not modules:
            raise UsageError("--against alone: name the modules to ask for with --models")
        return Systems(spec=None, modules=modules, urls=urls)
    path = find_zoo(zoo)
    modules = modules or tuple(module.name for module in Zoo.open(path).modules())
    return Systems(spec=spec(path, modules), modules=modules, urls=urls)


def loads_of(concurrency: str | None, rate: str | None) -> tuple[Load, ...]:
    """The loads that `--concurrency` or `--rate` name."""
    if concurrency and rate:
        raise UsageError("give --concurrency (closed loop) or --rate (open loop), not both")
    if rate:
        return tuple(Load("rate", value) for value in numbers("--rate", rate, float))
    return tuple(Load("concurrency", at) for at in numbers("--concurrency", concurrency or DEFAULT_CONCURRENCY, int))


def numbers(option: str, text: str, kind: type[int] | type[float]) -> list[Any]:
    """Numbers above 0 with commas between them, each once, in rising order."""
    try:
        values = sorted({kind(part) for part in text.split(",")})
    except ValueError:
        values = []
    if not values or not 0 < values[0] <= values[-1] < float("inf"):
        raise UsageError(f"{option} {text}: give numbers above 0, as in 1,2,4")
    return values
