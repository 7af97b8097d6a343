"""The systems of a comparison, each started when it is asked for: by us, or by somebody else and given as a URL.

Which they are, the options of the command say.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from psserve.bench.load.endpoints import check_endpoints, open_http
from psserve.bench.load.options import LoadOptions
from psserve.bench.measured_run import target_of_urls
from psserve.bench.systems.cores import check_cores, keep_to_cores
from psserve.bench.systems.fleet import ONE_POOL, shared_system
from psserve.bench.systems.stock import stock_system
from psserve.bench.systems.stock_plan import STOCK_KINDS
from psserve.bench.systems.system import RunningSystem, SystemSpec, Target
from psserve.errors import UsageError
from psserve.fleet.plan.devices import detect
from psserve.zoo import Zoo, find_zoo

FLEETS = ("shared", ONE_POOL)
"""Those of psserve, which differ in where decode servers find the KV of prompts."""
SYSTEMS = ("shared", *STOCK_KINDS, ONE_POOL)
"""Names of all systems."""
DEFAULT_SYSTEMS = ("shared", "disaggregated")


@contextlib.contextmanager
def running_system(name: str, spec: SystemSpec, note: Callable[[str], None]) -> Iterator[RunningSystem]:
    """Start the system, wait until every module has answered, and end it at the end. `note` is told how far it is.

    Raises:
        UsageError: there is no system of that name, too little KV cache, or no cores to deal out by role.
        ZooError: the zoo has not one of the modules, or cannot be read.
        PlanError: it does not fit this machine.
        StartError: a server did not become ready.
    """
    if name not in SYSTEMS:
        raise UsageError(f"no system {name!r}: there are {', '.join(SYSTEMS)}")
    if not spec.modules:
        raise UsageError("name at least one module")
    zoo = Zoo.open(spec.zoo)
    for module in spec.modules:
        zoo.module(module)
    check_cores(spec, detect())
    start = shared_system if name in FLEETS else stock_system
    with start(name, spec, note) as system:
        if spec.cores_by_role:
            keep_to_cores(system.target)
        yield system


@dataclass(frozen=True, kw_only=True)
class Systems:
    """What is compared, and with which models and resources."""

    spec: SystemSpec | None
    """Of the systems that we start, with all modules; None where there are none."""
    modules: tuple[str, ...]
    """As many as the largest comparison needs."""
    urls: Mapping[str, Target] = field(default_factory=dict)
    """Systems that are up: name -> where."""

    async def check_urls(self) -> None:
        """Ask those that are up for their models. Raises BenchError: one is not there, refuses, or lacks a module."""
        for target in self.urls.values():
            options = LoadOptions(api_key=target.api_key, certificate=target.certificate)
            async with open_http(options) as http:
                await check_endpoints(http, target.endpoints(self.modules), self.modules)

    @contextlib.contextmanager
    def started(self, name: str, modules: int, note: Callable[[str], None]) -> Iterator[RunningSystem]:
        """Have the system up, with the first so many modules. Raises as `running_system` does."""
        if name in self.urls:
            yield RunningSystem(self.urls[name], {})
            return
        assert self.spec is not None, "a system that is no URL is one that we start"
        with tempfile.TemporaryDirectory(prefix="psserve-spans-") as exports:
            spec = replace(self.spec, modules=self.modules[:modules], exports=Path(exports))
            with running_system(name, spec, note) as system:
                yield system


def started_names(systems: Sequence[str], against: Sequence[str]) -> tuple[str, ...]:
    """The systems that we start, each once: those asked for, else the paper's two, else none beside URLs.

    Raises UsageError for a name that is none.
    """
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

    `spec` makes the side conditions for a zoo and modules. Raises UsageError for what makes no sense, and ZooError.
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
