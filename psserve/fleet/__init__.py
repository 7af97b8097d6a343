"""Which server runs where: plan a fleet, launch it, supervise it, find a running one."""

from psserve.fleet.live.supervisor import Supervisor
from psserve.fleet.options.options import FleetOptions
from psserve.fleet.plan.plan import make_plan
from psserve.fleet.plan.spec import FleetPlan, ProcessSpec, RouterSpec, ServerSpec
from psserve.fleet.run.limits import Limits
from psserve.fleet.run.process import Handle, Starter, SubprocessStarter

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
