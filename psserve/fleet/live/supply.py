"""What the zoo has to offer a running fleet, as it is on disk now."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from psserve.contracts.router_config import ModuleConfig
from psserve.fleet.options.options import FleetOptions
from psserve.fleet.plan.plan_module import plan_elsewhere, plan_module
from psserve.fleet.plan.router_config import module_config
from psserve.fleet.plan.spec import FleetPlan, ModulePlan, PlannedCheckpoint, ServerSpec
from psserve.fleet.run.checkpoints import make_command, weights_of
from psserve.zoo import Zoo, serving_form


@dataclass(frozen=True)
class Offer:
    """One module that could be served."""

    weights: str
    """Equal for equal weights; see `checkpoints.weights_of`."""
    entry: ModuleConfig
    """The module in RouterConfig.modules; its version means nothing."""


@dataclass(frozen=True)
class Offers:
    """All modules at one moment."""

    modules: Mapping[str, Offer]
    damaged: Mapping[str, str]
    """Module -> why it cannot be served."""


class Supply(Protocol):
    """The source of a fleet's modules."""

    def offers(self) -> Offers:
        """The modules that there are now. Raises ZooError."""

    def version(self, name: str) -> Offer:
        """One version of a module (MODULE@VERSION). Raises ZooError."""

    def plan(self, plan: FleetPlan, module: str, version: int) -> ModulePlan:
        """Plan servers for `module`, or a version of it (MODULE@VERSION), in the fleet that runs `plan`.

        `version`: the number that the fleet gives it. Raises ZooError, PlanError.
        """

    def elsewhere(self, plan: FleetPlan, server: ServerSpec, lost: Collection[str]) -> ServerSpec:
        """Plan a server of the fleet that runs `plan` on a host that is not `lost`. Raises ZooError, PlanError."""

    def materialise(self, checkpoint: PlannedCheckpoint) -> tuple[str, ...]:
        """A command that makes the checkpoint; if it fails, its last line on stderr says why.

        Not a function: rebuilding weights may take a while, and the supervisor has other duties.
        """

    def serving_form(self, module: str) -> Path:
        """The directory of a module that is an adapter, as servers load it. Raises ZooError.

        It is there already, unless somebody deleted it.
        """


class ZooSupply:
    """The zoo in a directory. It is opened anew at each call."""

    def __init__(self, zoo: Path, options: FleetOptions) -> None:
        """`options`: of the fleet, which say how modules are served."""
        self._zoo, self._options = zoo, options

    def offers(self) -> Offers:
        scan = Zoo.open(self._zoo).scan()
        return Offers(
            modules={
                module.name: Offer(weights_of(module), module_config(module, self._options)) for module in scan.modules
            },
            damaged={name: str(error) for name, error in scan.damaged.items()},
        )

    def version(self, name: str) -> Offer:
        module = Zoo.open(self._zoo).module(name)
        return Offer(weights_of(module), module_config(module, self._options))

    def plan(self, plan: FleetPlan, module: str, version: int) -> ModulePlan:
        return plan_module(Zoo.open(self._zoo), plan, module, version)

    def elsewhere(self, plan: FleetPlan, server: ServerSpec, lost: Collection[str]) -> ServerSpec:
        return plan_elsewhere(Zoo.open(self._zoo), plan, server, lost)

    def materialise(self, checkpoint: PlannedCheckpoint) -> tuple[str, ...]:
        return make_command(self._zoo, checkpoint.module, checkpoint.path)

    def serving_form(self, module: str) -> Path:
        zoo = Zoo.open(self._zoo)
        return serving_form(zoo, zoo.module(module))
