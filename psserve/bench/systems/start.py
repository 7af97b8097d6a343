"""Starting a system by its name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from psserve.bench.systems.fleet import shared_system
from psserve.bench.systems.running import RunningSystem
from psserve.bench.systems.spec import SystemSpec
from psserve.bench.systems.stock import stock_system
from psserve.bench.systems.stock_plan import STOCK_KINDS
from psserve.errors import UsageError
from psserve.zoo import Zoo

SHARED = "shared"
SYSTEMS = (SHARED, *STOCK_KINDS)
"""Names of all systems."""


@contextlib.contextmanager
def running_system(name: str, spec: SystemSpec, note: Callable[[str], None]) -> Iterator[RunningSystem]:
    """Start the system, wait until every module has answered, and end it at the end. `note` is told how far it is.

    Raises:
        UsageError: there is no system of that name, or too little KV cache.
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
    start = shared_system if name == SHARED else stock_system
    with start(name, spec, note) as system:
        yield system
