"""Whether what prefill servers lend is read by anybody (docs/one-pool.md)."""

from __future__ import annotations

from psserve.contracts.servers import KvLeases
from psserve.fleet.observe.diagnosis import Diagnosis
from psserve.fleet.observe.overview import FleetOverview, ServerOverview

UNREAD_S = 5.0
"""A lease of such an age is no request's that ended while the servers were asked."""
MARGIN_S = 60.0
"""Beyond the longest request: it may have waited before it was lent anything, but not after."""
ADVICE = (
    "report it with psserve logs; what a decode server reads comes back when it ends (kill its pid of psserve status:"
    " it is started anew), and psserve stop and psserve launch free all"
)


def check_leases(fleet: FleetOverview, longest_s: float) -> list[Diagnosis]:
    """Check each prefill server of a fleet with one KV pool; nothing else. `longest_s`: of one request."""
    if not fleet.one_pool:
        return []
    is_idle = not any(server.running or server.queued for server in fleet.servers if server.role == "decode")
    return [_check(server, longest_s, is_idle) for server in fleet.servers if server.role == "prefill"]


def _check(server: ServerOverview, longest_s: float, is_idle: bool) -> Diagnosis:
    leases = server.kv_leases
    if leases is None:
        return Diagnosis("KV leases", "warn", f"{server.name} does not say what it lends", "see psserve status")
    if not leases.count:
        return Diagnosis("KV leases", "ok", f"{server.name} lends nothing")
    found = f"{server.name} lends {_said(leases)}"
    if is_idle and leases.oldest_s > UNREAD_S:
        return Diagnosis("KV leases", "fail", f"{found}, and no decode server has a request", ADVICE)
    if leases.oldest_s > longest_s + MARGIN_S:
        return Diagnosis("KV leases", "fail", f"{found}: no request may take so long ({longest_s:g} s)", ADVICE)
    return Diagnosis("KV leases", "ok", found)


def _said(leases: KvLeases) -> str:
    prompts = "the KV of 1 prompt" if leases.count == 1 else f"the KV of {leases.count} prompts"
    return f"{prompts} ({leases.tokens} tokens), the oldest for {leases.oldest_s:.0f} s"
