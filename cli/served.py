"""Which modules the zoo's running fleet serves, for commands that list them or must not pull them from under it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from psserve.errors import ModuleServed


def served_states(zoo: Path) -> dict[str, str]:
    """Each module (or the base) that the zoo's fleet serves -> "ready", another state, or how many servers are ready.

    Cleans nothing up; {} if no fleet runs. Raises FleetError if the fleet's state file is damaged.
    """
    if not (zoo / ".run" / "state.json").exists():  # the usual case in a listing, without the import of all of fleet
        return {}
    from psserve.fleet.plan.layout import run_dir
    from psserve.fleet.run.state import may_live, read_state

    fleet = read_state(run_dir(zoo))
    if fleet is None or not may_live(run_dir(zoo), fleet):
        return {}
    states: dict[str, list[str]] = {}
    for server in fleet.servers:
        if server.role != "router":
            states.setdefault(server.module or fleet.base, []).append(server.state)
    return {module: states_in_words(of_module) for module, of_module in states.items()}


def versions_served(zoo: Path, name: str) -> tuple[int | None, int | None]:
    """The versions of a module that the zoo's running fleet serves: the present one, and one on trial; None: none."""
    if not (zoo / ".run" / "state.json").exists():
        return None, None
    from psserve.fleet.observe.control import router_config_of

    modules = router_config_of(zoo).get("modules", ())
    told: dict[str, Any] = next((module for module in modules if module["name"] == name), {})
    return told.get("zoo_version"), (told.get("trial") or {}).get("zoo_version")


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
