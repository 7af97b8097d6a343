"""Which server runs where: plan a fleet, launch it, supervise it, find a running one."""

from psserve.fleet.limits import Limits
from psserve.fleet.options import FleetOptions
from psserve.fleet.plan import make_plan
from psserve.fleet.process import Handle, Starter, SubprocessStarter
from psserve.fleet.spec import FleetPlan, ProcessSpec, RouterSpec, ServerSpec
from psserve.fleet.supervisor import Supervisor

__all__ = [
    "FleetOptions",
    "FleetPlan",
    "Handle",
    "Limits",
    "ProcessSpec",
    "RouterSpec",
    "ServerSpec",
    "Starter",
    "SubprocessStarter",
    "Supervisor",
    "make_plan",
]
