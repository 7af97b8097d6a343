"""Which modules the zoo's running fleet serves, for commands that list them or must not pull them from under it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psserve.errors import ModuleServed

if TYPE_CHECKING:
    from psserve.fleet.run.state import FleetState


def served_states(zoo: Path) -> dict[str, str]:
    """Each module (or the base) that the zoo's fleet serves -> "ready", another state, or how many servers are ready.

    Adapters have the servers that they share. Cleans nothing up; {} if no fleet runs. Raises FleetError if the fleet's
    state file is damaged.
    """
    fleet = _fleet(zoo)
    if fleet is None:
        return {}
    from psserve.fleet.observe.control import modules_by_server

    served_by = modules_by_server(zoo)
    states: dict[str, list[str]] = {}
    for server in fleet.servers:
        if server.role != "router":
            called = server.module or fleet.base
            for name in served_by.get(called, [called]):
                states.setdefault(name, []).append(server.state)
    return {module: states_in_words(of_module) for module, of_module in states.items()}


@dataclass(frozen=True)
class ServedVersions:
    """The zoo's numbers of the versions of a module that its running fleet serves. None: none."""

    present: int | None = None
    tried: int | None = None
    """The one on trial."""
    is_measured: bool = False
    """Whether that one answers nobody but those who name it, until its accuracy is known."""

    @property
    def numbers(self) -> set[int]:
        return {version for version in (self.present, self.tried) if version is not None}


def versions_served(zoo: Path, name: str) -> ServedVersions:
    """Those of the module `name`. Raises as `served_states`."""
    if _fleet(zoo) is None:
        return ServedVersions()
    from psserve.fleet.observe.control import router_config_of

    modules = router_config_of(zoo).get("modules", ())
    told: dict[str, Any] = next((module for module in modules if module["name"] == name), {})
    trial = told.get("trial") or {}
    is_measured = bool(trial) and not (trial.get("share") or trial.get("shadow"))
    return ServedVersions(told.get("zoo_version"), trial.get("zoo_version"), is_measured)


def _fleet(zoo: Path) -> FleetState | None:
    """The zoo's fleet, if it runs here or may run elsewhere: what a dead one has left serves nothing."""
    if not (zoo / ".run" / "state.json").exists():  # the usual case in a listing, without the import of all of fleet
        return None
    from psserve.fleet.plan.layout import run_dir
    from psserve.fleet.run.state import may_live, read_state

    fleet = read_state(run_dir(zoo))
    return fleet if fleet is not None and may_live(run_dir(zoo), fleet) else None


def states_in_words(states: list[str]) -> str:
    """The states of one module's servers in a word or two."""
    if len(set(states)) == 1:
        return states[0]
    return f"{states.count('ready')}/{len(states)} ready"


def require_not_served(zoo: Path, module: str, way_out: str = "end it first with `psserve stop`") -> None:
    """Raise ModuleServed if the zoo's running fleet serves `module`."""
    if module in served_states(zoo):
        raise ModuleServed(f"module {module!r} is served by the running fleet: {way_out}")


def forget_checkpoint(zoo: Path, module: str) -> None:
    """Delete what a fleet made of a module that is no longer there, e.g. its rebuilt weights."""
    import shutil

    from psserve.fleet.plan.layout import checkpoint_path, run_dir

    shutil.rmtree(checkpoint_path(run_dir(zoo), module), ignore_errors=True)
