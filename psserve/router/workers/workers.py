"""The workers a router knows, and what it believes of each.

    starting --probe succeeds--> ready --connection fails--> down --probe succeeds--> ready

Only an answered request makes a worker `ready`; see health.py.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Literal, TypeVar

from psserve.contracts.limits import BreakerLimits
from psserve.contracts.router_config import VERSION_MARK, ModuleConfig, RouterConfig, WorkerConfig

BreakerState = Literal["closed", "half-open", "open"]
BREAKER_STATES: tuple[BreakerState, ...] = ("closed", "half-open", "open")
"""The states in the order of their numbers in metrics."""


class Breaker:
    """The breaker of one worker. Times are monotonic seconds."""

    def __init__(self, limits: BreakerLimits | None = None) -> None:
        self._limits = limits or BreakerLimits()
        self.state: BreakerState = "closed"
        self.opened = 0
        """How often."""
        self._failures = 0
        self._successes = 0
        self._until = 0.0
        self._partners: set[str] = set()

    def failed(self, partner: str, partners: int = 1) -> bool:
        """A request failed here, paired with `partner`. True if that opens the breaker.

        Failures must have met `partners` different ones: a worker that everybody is paired with must not be left
        alone for what one of its partners does to it.
        """
        self._successes = 0
        self._failures += 1
        self._partners.add(partner)
        enough = self._failures >= self._limits.failures and len(self._partners) >= partners
        if self.state == "open" or not (enough or self.state == "half-open"):
            return False
        self.state = "open"
        self.opened += 1
        self._until = monotonic() + self._limits.open_secs
        return True

    def succeeded(self) -> None:
        """A request that was let in came to its end. Late ones from before it opened prove nothing."""
        if self.state == "open":
            return
        self._failures = 0
        self._partners.clear()
        self._successes += 1
        if self._successes >= self._limits.successes:
            self.state = "closed"

    @property
    def is_resting(self) -> bool:
        """Whether not even a probe should go there."""
        return self.state == "open" and monotonic() < self._until

    def probed(self) -> None:
        """A probe went through."""
        if self.state == "open" and not self.is_resting:
            self.state, self._successes = "half-open", 0


State = Literal["starting", "ready", "down"]
LOAD_AGAIN_S = 5.0
"""After an adapter could not be loaded, before it is tried again."""

log = logging.getLogger("psserve.router")
Key = TypeVar("Key")


@dataclass(eq=False)
class Worker:
    """One worker and its present state."""

    config: WorkerConfig
    state: State = "starting"
    error: str | None = None
    """Why it is not ready, in one line."""
    running: int = 0
    """Legs of ours in flight on it."""
    last_answer: float = float("-inf")
    """When it last completed a sequence (monotonic seconds)."""
    last_sign: float = float("-inf")
    """When it last gave a sign of work, or was sent a leg while it had none (monotonic seconds)."""
    leaves: bool = False
    """It is about to end: it finishes what it has, and gets nothing new."""
    is_suspect: bool = False
    """It could not handle somebody's body: a probe is to tell whether it handles others."""
    breaker: Breaker = field(default_factory=Breaker)
    starts: int = 0
    """How often it became ready; each time it may be a new process, with nothing in its cache."""
    _cannot_load: dict[str, float] = field(default_factory=dict)
    """Adapter -> until when it is not asked for it again (monotonic seconds)."""
    url: str = field(init=False)

    def __post_init__(self) -> None:
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        self.url = f"http://{host}:{self.config.port}"

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def is_ready(self) -> bool:
        return self.state == "ready" and not self.leaves

    def could_not_load(self, adapter: str) -> None:
        """Note that it failed to load an adapter: trying holds up all its other requests, so it rests a while."""
        self._cannot_load[adapter] = monotonic() + LOAD_AGAIN_S

    def serves(self, module: ModuleConfig) -> bool:
        """Whether it takes requests of a module that it is a decode worker of."""
        return self.is_ready and (module.adapter is None or monotonic() >= self._cannot_load.get(module.adapter, 0.0))

    def begin(self) -> None:
        """Note that it is sent a leg; whoever sends it lowers `running` again."""
        if not self.running:
            self.last_sign = monotonic()
        self.running += 1

    def mark_ready(self) -> None:
        """A request went through this worker: it gets others, unless its breaker has it rest a while yet."""
        if self.breaker.is_resting:
            return
        self.breaker.probed()
        if not self.is_ready:
            self.starts += 1
            log.info("worker=%s state=ready", self.name)
        self.state, self.error = "ready", None

    def describe(self) -> dict[str, Any]:
        """What it says in `/workers` of itself."""
        return {
            "name": self.name,
            "role": self.config.role,
            "module": self.config.module,
            "version": self.config.version,
            "url": self.url,
            "state": self.state,
            "running": self.running,
            "error": "leaves: gets nothing new" if self.leaves else self.error,
            "breaker": self.breaker.state,
        }


class WorkerTable:
    """All workers and modules of a router, looked up by role and name."""

    def __init__(self, config: RouterConfig) -> None:
        self.workers: list[Worker] = []
        self._held: Counter[tuple[str | None, int]] = Counter()
        self._held_of_group: Counter[str | None] = Counter()
        self._held_adapters: Counter[str | None] = Counter()
        self._ever: set[str] = set()
        self.reconfigure(config)

    def reconfigure(self, config: RouterConfig) -> None:
        """Know the workers and modules of `config` from now on. A worker that stays keeps its state.

        Requests in flight are not touched: they hold on to their workers and to their module's version.
        """
        known = {worker.config: worker for worker in self.workers}
        self.workers = [
            known.get(worker) or Worker(worker, breaker=Breaker(config.breaker)) for worker in config.workers
        ]
        self.prefills = [worker for worker in self.workers if worker.config.role == "prefill"]
        self.decodes = [worker for worker in self.workers if worker.config.role == "decode"]
        self._listed = config.modules
        self._modules = {name: module for module in config.modules for name in (module.name, *module.aliases)}
        self._tried = {module.name: tried for module in config.modules if (tried := module.tried) is not None}
        self._versions = {
            f"{module.name}{VERSION_MARK}{module.zoo_version}": module
            for module in (*config.modules, *self._tried.values())
            if module.zoo_version is not None
        }
        self._ever |= self._known_modules()

    def module(self, name: str) -> ModuleConfig | None:
        """The module of that name or alias, or the version of one (NAME@VERSION) if it is served."""
        return self._modules.get(name) or self._versions.get(name)

    def tried(self, module: ModuleConfig) -> ModuleConfig | None:
        """The version on trial beside a module, if it has a worker that takes requests now."""
        tried = self._tried.get(module.name)
        if tried is None or not any(worker.serves(tried) for worker in self.decodes_of(tried)):
            return None
        return tried

    def label(self, module: ModuleConfig) -> str:
        """What tells a version on trial from the module of the same name: NAME@VERSION, or NAME."""
        if self._tried.get(module.name) is module:
            return f"{module.name}{VERSION_MARK}{module.zoo_version}"
        return module.name

    @property
    def versions(self) -> set[tuple[str, str]]:
        """Names and versions, as clients are told them, of the modules that are listed, and of those on trial."""
        return {(module.name, str(module.shown_version)) for module in (*self._listed, *self._tried.values())}

    @property
    def former_modules(self) -> set[str]:
        """Modules that were known, and neither are listed nor have a worker any more."""
        return self._ever - self._known_modules()

    def _known_modules(self) -> set[str]:
        listed = {module.name for module in self._listed}
        return listed | {worker.config.module for worker in self.decodes if worker.config.module is not None}

    def decodes_of(self, module: ModuleConfig) -> list[Worker]:
        """The workers of this very version, whether new requests still get it or not; or those of its group."""
        if module.group is not None:
            return [worker for worker in self.decodes if worker.config.module == module.group]
        wanted = (module.name, module.version)
        return [worker for worker in self.decodes if (worker.config.module, worker.config.version) == wanted]

    def adapters_of(self, worker: Worker) -> list[str]:
        """The adapters that a decode worker of a group has for new requests."""
        known = (*self._listed, *self._tried.values())
        return [one.adapter for one in known if one.group == worker.config.module and one.adapter is not None]

    @contextmanager
    def hold(self, module: ModuleConfig) -> Iterator[None]:
        """Note a request that may choose workers of this version until it leaves: they are needed so long."""
        with ExitStack() as counted:
            if module.group is None:
                counted.enter_context(_counted(self._held, (module.name, module.version)))
            else:
                counted.enter_context(_counted(self._held_of_group, module.group))
                counted.enter_context(_counted(self._held_adapters, module.adapter))
            yield

    def describe(self) -> list[dict[str, Any]]:
        """The entries of `/workers`. `held`: requests in flight that may choose this worker."""
        return [worker.describe() | {"held": self._held_on(worker.config)} for worker in self.workers]

    def held_adapters(self) -> dict[str, int]:
        """Adapter -> requests in flight that may need it, where there are any."""
        return {adapter: count for adapter, count in self._held_adapters.items() if adapter is not None}

    def _held_on(self, worker: WorkerConfig) -> int:
        return self._held[worker.module, worker.version] + self._held_of_group[worker.module]

    def unanswered(self) -> list[str]:
        """Listed modules of which no worker has ever answered."""
        return [module.name for module in self._listed if not any(worker.starts for worker in self.decodes_of(module))]

    def is_usable(self) -> bool:
        """At least one prefill and one decode worker would take a request now."""
        return any(worker.is_ready for worker in self.prefills) and any(worker.is_ready for worker in self.decodes)

    def ready_prefill(self) -> Worker | None:
        """A prefill worker that would take a request now, whichever: for questions about the base."""
        return next((worker for worker in self.prefills if worker.is_ready), None)

    def mark_down(self, worker: Worker, error: str) -> None:
        """`worker` does not answer: keep requests away until a probe succeeds.

        When the last prefill worker is lost, the decode workers must be proven again too: its successor is a new
        process, and their transfer connections to it are not.
        """
        if worker.state != "down":
            log.warning("worker=%s state=down error=%r", worker.name, error)
        worker.state, worker.error = "down", error
        if worker.config.role == "prefill" and not any(prefill.is_ready for prefill in self.prefills):
            for decode in self.decodes:
                if decode.is_ready:
                    decode.state, decode.error = "starting", "waiting for a prefill worker"

    def failed(self, worker: Worker, partner: Worker) -> None:
        """`worker` failed a request that it was paired with `partner` for."""
        # A hanging decode worker makes its prefill worker fail too, and that one serves all modules.
        partners = min(2, len(self.decodes)) if worker.config.role == "prefill" else 1
        if worker.breaker.failed(partner.name, partners) and worker.is_ready:
            self.doubt(worker, "fails one request after the other: left alone for a while")

    def doubt(self, worker: Worker, error: str) -> None:
        """`worker` accepts requests but may not answer any: have a probe find out before it gets more."""
        log.warning("worker=%s state=starting error=%r", worker.name, error)
        worker.state, worker.error = "starting", error


@contextmanager
def _counted(counts: Counter[Key], key: Key) -> Iterator[None]:
    """Count one more of `key` meanwhile. What is not counted has no entry."""
    counts[key] += 1
    try:
        yield
    finally:
        counts[key] -= 1
        if not counts[key]:
            del counts[key]


class Startup:
    """Tells which modules a router that has just begun still waits for. What happens later does not begin it anew.

    A router that is restarted in a fleet that `was_ready` waits for nobody: one dead module does not make it unready.
    """

    def __init__(
        self,
        table: WorkerTable,
        patience_s: float,
        clock: Callable[[], float] = monotonic,
        *,
        was_ready: bool = False,
    ) -> None:
        """What has not answered after `patience_s` has failed for good."""
        self._table = table
        self._clock = clock
        self._ends = clock() + patience_s
        self._is_over = self._was_ready = was_ready

    def look(self) -> tuple[list[str], list[str]]:
        """The modules that it waits for, and those that have failed for good: have never answered, and had the time."""
        unanswered = self._table.unanswered()
        had_time = self._clock() >= self._ends
        self._is_over = self._is_over or not unanswered or had_time
        if not self._is_over:
            return unanswered, []
        return [], unanswered if had_time or not self._was_ready else []
