"""The ports of planned servers: those that the options give, and free ones for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psserve.fleet.options import RouterOptions
from psserve.fleet.ports import free_ports, require_different, require_free
from psserve.fleet.sglang_args import LOOPBACK
from psserve.fleet.slots import Slot

_ROUTER = "router.port (--port)"


@dataclass(frozen=True)
class ServerPorts:
    """Where one server listens, always on the loopback interface."""

    http: int
    dist: int
    """For torch.distributed; SGLang reserves it even where a rendezvous file takes its place."""
    bootstrap: int | None
    """Prefill servers only: where decode servers find it."""


def fleet_ports(router: RouterOptions, slots: Sequence[Slot]) -> tuple[int, list[ServerPorts]]:
    """The router's port, and those of each server of a new fleet.

    Raises:
        PlanError: a given port is taken, or given twice.
    """
    given = {_ROUTER: router.port} if router.port else {}
    given |= {f"{slot.table}.ports[{slot.replica}]": slot.port for slot in slots if slot.port}
    given |= {
        f"{slot.table}.bootstrap_ports[{slot.replica}]": slot.bootstrap_port for slot in slots if slot.bootstrap_port
    }
    require_different(given)
    for key, port in given.items():
        require_free(port, router.host if key == _ROUTER else LOOPBACK, key)
    free = iter(free_ports(1 + 3 * len(slots), frozenset(given.values())))
    return router.port or next(free), _deal(slots, free)


def more_ports(slots: Sequence[Slot], taken: frozenset[int]) -> list[ServerPorts]:
    """Free ports for servers that join a running fleet, which has `taken`.

    Raises:
        PlanError: there are not enough.
    """
    return _deal(slots, iter(free_ports(3 * len(slots), taken)))


def _deal(slots: Sequence[Slot], free: Iterator[int]) -> list[ServerPorts]:
    return [
        ServerPorts(
            http=slot.port or next(free),
            dist=next(free),
            bootstrap=(slot.bootstrap_port or next(free)) if slot.role == "prefill" else None,
        )
        for slot in slots
    ]
