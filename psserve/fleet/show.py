"""A plan as people and programs read it (`psserve launch --dry-run`). No secret is in it."""

from __future__ import annotations

import shlex
from typing import Any

from psserve.fleet.spec import FleetPlan, ServerSpec


def plan_text(plan: FleetPlan) -> str:
    """A table of servers, then every command line as a shell would take it."""
    rows = [("server", "module", "device", "port", "bootstrap")]
    rows += [(s.name, s.module or "-", s.device, str(s.port), str(s.bootstrap_port or "-")) for s in plan.servers]
    rows.append((plan.router.name, "-", "cpu", str(plan.router.port), "-"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    commands = [f"# {p.name}\n{shlex.join(p.command)}" for p in (*plan.servers, plan.router)]
    return "\n".join([*table, "", *commands])


def plan_json(plan: FleetPlan) -> dict[str, Any]:
    """The plan as JSON. Environments hold what servers are given on purpose and what they inherit, but no key."""
    return {
        "url": plan.router.url,
        "zoo": str(plan.zoo),
        "base": plan.base,
        "servers": [
            {
                "name": process.name,
                "role": process.role,
                "module": process.module if isinstance(process, ServerSpec) else None,
                "port": process.port,
                "bootstrap_port": process.bootstrap_port if isinstance(process, ServerSpec) else None,
                "device": process.device if isinstance(process, ServerSpec) else "cpu",
                "command": list(process.command),
                "env": dict(process.env),
                "log": str(process.log),
            }
            for process in (*plan.servers, plan.router)
        ],
    }
