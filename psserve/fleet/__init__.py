"""Which server runs where: plan a fleet, launch it, supervise it, find a running one.

What is named here is imported when it is first used: small programs of a fleet, which are started again and again and
on every host, need none of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psserve.fleet.live.supervisor import Supervisor
    from psserve.fleet.options.options import FleetOptions
    from psserve.fleet.plan.plan import make_plan
    from psserve.fleet.plan.spec import FleetPlan
    from psserve.fleet.run.member import Limits

__all__ = ["FleetOptions", "FleetPlan", "Limits", "Supervisor", "make_plan"]
_HOMES = {
    "FleetOptions": "options.options",
    "FleetPlan": "plan.spec",
    "Limits": "run.member",
    "Supervisor": "live.supervisor",
    "make_plan": "plan.plan",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
