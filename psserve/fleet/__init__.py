"""Which server runs where: plan a fleet, launch it, supervise it, find a running one."""

from psserve.fleet.live.supervisor import Supervisor
from psserve.fleet.options.options import FleetOptions
from psserve.fleet.plan.plan import make_plan
from psserve.fleet.plan.spec import FleetPlan
from psserve.fleet.run.member import Limits

__all__ = ["FleetOptions", "FleetPlan", "Limits", "Supervisor", "make_plan"]
