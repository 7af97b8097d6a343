"""Ports for servers, on the address of their host.

Free ports are taken from below the kernel's ephemeral range: a server that is down for a moment must find its port
free again, so no outgoing connection and no "any free port" of another program may land on it. No port is given twice
in a fleet, nor one at which somebody listens on any of its hosts; other machines have said where that is when they were
asked what a plan must know of them.
"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import psutil

from psserve.errors import PlanError
from psserve.fleet.options.options import RouterOptions
from psserve.fleet.plan.host import Host
from psserve.fleet.plan.planned import PlannedServer

_ROUTER = "router.port (--port)"
_ROUTER_HOST = "router.host (--host)"
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_SPAN = 12_000
_TAKEN = "is taken"


@dataclass(frozen=True)
class ServerPorts:
    """The ports of one server, on its host's address."""

    http: int
    dist: int
    """For torch.distributed; SGLang reserves it even where a rendezvous file takes its place."""
    bootstrap: int | None
    """Prefill servers only: where decode servers find it."""


def fleet_ports(
    router: RouterOptions, servers: Sequence[PlannedServer], hosts: Sequence[Host]
) -> tuple[int, list[ServerPorts]]:
    """The router's port, and those of each server of a new fleet. `hosts`: that of each server.

    Raises:
        PlanError: a given port is taken, may not be used, or is given twice, or the router's address is not this
            machine's.
    """
    require_here(router.host, _ROUTER_HOST)
    given = {_ROUTER: router.port} if router.port else {}
    addresses = {_ROUTER: router.host}
    for server, host in zip(servers, hosts, strict=True):
        for name, port in (("ports", server.port), ("bootstrap_ports", server.bootstrap_port)):
            if port:
                key = f"{server.table}.{name}[{server.replica}]"
                given[key] = port
                if host.is_local:
                    addresses[key] = host.address
                elif port in host.taken_ports:
                    raise port_taken(key, port, host.name)
    require_different(given)
    for key, port in given.items():
        if key in addresses:
            require_free(port, addresses[key], key)
    others = frozenset().union(*(host.taken_ports for host in hosts))
    free = iter(free_ports(1 + 3 * len(servers), others.union(given.values())))
    return router.port or next(free), _deal(servers, free)


def more_ports(servers: Sequence[PlannedServer], taken: frozenset[int]) -> list[ServerPorts]:
    """Free ports for servers that join a running fleet, which has `taken`.

    Raises:
        PlanError: there are not enough.
    """
    return _deal(servers, iter(free_ports(3 * len(servers), taken)))


def _deal(servers: Sequence[PlannedServer], free: Iterator[int]) -> list[ServerPorts]:
    return [
        ServerPorts(
            http=server.port or next(free),
            dist=next(free),
            bootstrap=(server.bootstrap_port or next(free)) if server.role == "prefill" else None,
        )
        for server in servers
    ]


def require_here(host: str, key: str) -> None:
    """Check an address, or a name of one. `key` says where it was asked for.

    Raises:
        PlanError: nothing can listen on it here.
    """
    try:
        _listen(0, host)
    except OSError as error:
        raise PlanError(f"{key}: {host} is no address of this machine ({error.strerror}); give one that is") from None


def require_free(port: int, host: str, key: str) -> int:
    """`port` itself, checked. `key` says where it was asked for.

    Raises:
        PlanError: another program listens there, or this one may not.
    """
    why = obstacle(port, host)
    if why == _TAKEN:
        raise port_taken(key, port, host)
    if why is not None:
        raise PlanError(f"{key}: port {port} on {host} {why}; give another one")
    return port


def port_taken(key: str, port: int, host: str) -> PlanError:
    """Somebody listens at a port that was asked for by `key`."""
    return PlanError(f"{key}: port {port} on {host} {_TAKEN}; stop what listens there, or give another one")


def require_different(wanted: Mapping[str, int]) -> None:
    """Check ports by where each was asked for.

    Raises:
        PlanError: two are the same.
    """
    seen: dict[int, str] = {}
    for key, port in wanted.items():
        if port in seen:
            raise PlanError(f"port {port} is given twice, by {seen[port]} and {key}: change one of them")
        seen[port] = key


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on this port now. Ports in TIME_WAIT count as free."""
    return obstacle(port, host) is None


def obstacle(port: int, host: str) -> str | None:
    """Why a server could not listen on this port now, to be read after "port 80"; None: it could."""
    try:
        _listen(port, host)
    except PermissionError:
        return "may not be used by this user"
    except OSError as error:
        return _TAKEN if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
    return None


def _listen(port: int, host: str) -> None:
    """Try it for a moment. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except ValueError:  # of the codec for names, e.g. an empty part
            raise socket.gaierror(socket.EAI_NONAME, "not a name") from None
        probe.listen(1)


def listened_at() -> frozenset[int]:
    """The TCP ports of this machine at which somebody listens, on whichever address."""
    listening = (one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN)
    return frozenset(one.laddr.port for one in listening if one.laddr)


def listens(host: str, port: int) -> bool:
    """Whether somebody answers there now. `host` may be a wildcard address."""
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def free_ports(count: int, taken: frozenset[int] = frozenset()) -> list[int]:
    """`count` different free loopback ports, none of them in `taken`: neighbours, as far as they are free.

    Two fleets that start at once, and listen later, hardly ever get the same neighbourhood.

    Raises:
        PlanError: the range has not that many free ones.
    """
    low, high = _range()
    first = random.randrange(low, high)
    free = (port for port in (*range(first, high), *range(low, first)) if port not in taken and is_free(port))
    found = list(islice(free, count))
    if len(found) == count:
        return found
    raise PlanError(
        f"found only {len(found)} of {count} free ports in {low}-{high - 1} on 127.0.0.1; stop some servers"
    )


def _range() -> tuple[int, int]:
    try:
        low = int(_EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        low = 32768
    high = low if low > 1024 + _SPAN else 65536
    return high - _SPAN, high
