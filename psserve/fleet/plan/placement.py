"""Which host and GPUs each server gets.

Servers with `gpus` get those. For the others: with two or more GPUs, prefill apart from decode; each server goes
where most memory is left. Over several hosts servers are spread first, and one that has no room where it would go best
goes to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from psserve.errors import NoRoom, PlanError
from psserve.fleet.options.server_options import PrefillOptions
from psserve.fleet.plan.host import Host
from psserve.fleet.plan.memory import ServerMemory, usable_bytes
from psserve.fleet.plan.planned import PlannedServer

Need = Callable[[PlannedServer], int]
"""Bytes that a server surely takes on each of its GPUs."""


@dataclass(frozen=True)
class Slot:
    """Where a server goes."""

    host: Host
    gpus: tuple[int, ...] = ()
    """Of the host; none: it runs on CPU."""


Fit = Callable[[Host, Sequence[PlannedServer]], tuple[list[tuple[int, ...]], list[ServerMemory]]]
"""The GPUs and memory of each of these servers on a host. Raises NoRoom."""
_On = dict[str, list[PlannedServer]]
"""Host -> the servers on it."""


def spread(
    hosts: Sequence[Host], servers: Sequence[PlannedServer], taken: Mapping[str, int], fit: Fit, *, on_gpus: bool
) -> list[tuple[Slot, ServerMemory]]:
    """Place and memory of each server, one after the other: where each would have the largest part of what is left.

    If they have no room so, each goes to the first host that has room for it, in this order.
    `taken`: bytes that running servers hold, by host.

    Raises:
        PlanError: no host has the labels that a server asks for, or room for it.
    """
    left = {
        host.name: (sum(map(usable_bytes, host.machine.gpus)) if on_gpus else host.machine.total_bytes)
        - taken.get(host.name, 0)
        for host in hosts
    }
    try:
        on = _shared_out(hosts, servers, left, lambda _server, preferred, _on: preferred[0])
        return _fitted(hosts, servers, on, fit)
    except NoRoom:
        if len(hosts) == 1:  # this refusal shows the sum of all servers
            raise
    on = _shared_out(hosts, servers, left, lambda server, preferred, on: _first_with_room(server, preferred, on, fit))
    return _fitted(hosts, servers, on, fit)


def _shared_out(
    hosts: Sequence[Host],
    servers: Sequence[PlannedServer],
    left: Mapping[str, int],
    choose: Callable[[PlannedServer, Sequence[Host], _On], Host],
) -> _On:
    """`choose`: the host of a server, of these in the order of preference, beside the servers that are there."""
    on: _On = {host.name: [] for host in hosts}
    for server in servers:
        labelled = [host for host in hosts if host.has(server.options.labels)]
        if not labelled:
            raise PlanError(
                f"{server.table}.labels = {dict(server.options.labels)}: no machine for {server.name} has them all,"
                f" of {', '.join(host.name for host in hosts)}"
            )
        parts = {host.name: server.options.tp + sum(one.options.tp for one in on[host.name]) for host in hosts}
        preferred = sorted(labelled, key=lambda host: left[host.name] / parts[host.name], reverse=True)
        on[choose(server, preferred, on).name].append(server)
    return on


def _first_with_room(server: PlannedServer, preferred: Sequence[Host], on: _On, fit: Fit) -> Host:
    lacks = []
    for host in preferred:
        try:
            fit(host, [*on[host.name], server])
        except NoRoom as error:
            lacks.append(f"{host.name}: {error.lacks}")
        else:
            return host
    all_lack = "; ".join(lacks)
    raise NoRoom(
        f"no machine has room for {server.name}: {all_lack}; serve fewer --modules, lower --kv-tokens or tp, or use"
        " more machines",
        all_lack,
    )


def _fitted(
    hosts: Sequence[Host], servers: Sequence[PlannedServer], on: _On, fit: Fit
) -> list[tuple[Slot, ServerMemory]]:
    found: dict[str, tuple[Slot, ServerMemory]] = {}
    for host in hosts:
        placed, memory = fit(host, on[host.name]) if on[host.name] else ([], [])
        for server, gpus, one in zip(on[host.name], placed, memory, strict=True):
            found[server.name] = Slot(host, gpus), one
    return [found[server.name] for server in servers]


class Placer:
    """Places servers one after the other on the GPUs `left` has; `left` is the memory of each still to be planned."""

    def __init__(self, left: Sequence[int], need: Need) -> None:
        self._left = list(left)
        self._need = need

    def place(self, servers: Sequence[PlannedServer], pool: Collection[int]) -> list[tuple[int, ...]]:
        """The GPUs of each server, of those in `pool` where its options name none.

        Raises:
            NoRoom: the pool has no `tp` neighbouring GPUs.
            PlanError: a GPU does not exist.
        """
        choosy_first = sorted(
            servers, key=lambda server: server.options.gpus is None
        )  # others then keep out of their way
        on = {server.name: self._place(server, pool) for server in choosy_first}
        return [on[server.name] for server in servers]

    def _place(self, server: PlannedServer, pool: Collection[int]) -> tuple[int, ...]:
        groups = server.options.gpu_groups()
        if groups is not None:
            self._require(server)
            group = groups[server.replica % len(groups)]
        else:
            group = max(self._groups(server, pool), key=lambda ids: min(self._left[i] for i in ids))
        for i in group:
            self._left[i] -= self._need(server)
        return group

    def _require(self, server: PlannedServer) -> None:
        for i in server.options.gpus or ():
            if i >= len(self._left):
                raise PlanError(
                    f"{server.table}.gpus = {list(server.options.gpus or ())}: there is no GPU {i}, the visible ones"
                    f" are {_listed(range(len(self._left)))} (see nvidia-smi and CUDA_VISIBLE_DEVICES)"
                )

    def _groups(self, server: PlannedServer, pool: Collection[int]) -> list[tuple[int, ...]]:
        groups = neighbours(pool, server.options.tp)
        if not groups:
            tp, there = server.options.tp, _listed(sorted(pool))
            raise NoRoom(
                f"{server.table}.tp = {tp}: {server.name} would need {tp} neighbouring GPUs, and there are {there}"
                " for it; lower tp or set gpus",
                f"no {tp} neighbouring GPUs",
            )
        return groups


def prefill_replicas(count: int, wanted: PrefillOptions, decode: Sequence[PlannedServer]) -> int:
    """How many prefill servers there are on `count` GPUs (0: on CPU): as many as asked for, or as leave no GPU idle."""
    if not wanted.fills_gpus or not count:
        return wanted.replicas
    claimed = {i for server in decode for i in server.options.gpus or ()}
    needed = sum(server.options.tp for server in decode if server.options.gpus is None)
    return max(1, (count - len(claimed) - needed) // wanted.tp)


def place_fleet(
    placer: Placer, count: int, prefill: Sequence[PlannedServer], decode: Sequence[PlannedServer]
) -> list[tuple[int, ...]]:
    """The GPUs of all servers of a new fleet on a machine of `count` GPUs, prefill servers first.

    Raises:
        PlanError: see `Placer.place`.
    """
    on = placer.place(prefill, prefill_pool(count, prefill, decode))
    return on + placer.place(decode, decode_pool(count, on, decode))


def prefill_pool(count: int, prefill: Sequence[PlannedServer], decode: Sequence[PlannedServer]) -> Collection[int]:
    """GPUs for prefill servers that name none: as many as they need, while enough are left for decode servers."""
    claimed = {i for server in decode for i in server.options.gpus or ()}
    pool = [i for i in range(count) if i not in claimed] or list(range(count))
    wanted = sum(server.options.tp for server in prefill)
    kept = max((server.options.tp for server in decode if server.options.gpus is None), default=0)
    apart = min(wanted, len(pool) - kept)
    return pool[:apart] if apart >= max((server.options.tp for server in prefill), default=1) else pool


def decode_pool(count: int, prefill_on: Sequence[tuple[int, ...]], decode: Sequence[PlannedServer]) -> Collection[int]:
    """GPUs for decode servers that name none: those without prefill servers, if they are enough."""
    used = {i for group in prefill_on for i in group}
    rest = [i for i in range(count) if i not in used]
    largest = max((server.options.tp for server in decode if server.options.gpus is None), default=1)
    return rest if neighbours(rest, largest) else range(count)


def neighbours(pool: Collection[int], size: int) -> list[tuple[int, ...]]:
    """Groups of `size` GPUs with consecutive numbers, none in two groups."""
    groups: list[tuple[int, ...]] = []
    used: set[int] = set()
    for first in sorted(pool):
        group = tuple(range(first, first + size))
        if all(i in pool and i not in used for i in group):
            groups.append(group)
            used.update(group)
    return groups


def _listed(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids)) or "none"
