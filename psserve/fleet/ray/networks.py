"""Where a machine is reached: the address and the network interface that its servers use."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, ip_address

import psutil


@dataclass(frozen=True)
class Reached:
    """An address of this machine, and the interface that it belongs to."""

    address: str
    nic: str


def reached_at(host: str, nic: str | None) -> Reached | str:
    """Where this machine, which Ray knows by the address `host`, is reached over `nic`, or over Ray's own interface.

    Returns a text where that cannot be: what is wrong, and what to do.
    """
    found = list(_interfaces())
    listed = ", ".join(sorted({name for name, _ in found})) or "none"
    address = ip_address(host)
    own = [name for name, its in found if isinstance(address, IPv4Address) and address in its.network]
    if nic is None:
        return Reached(host, own[0]) if own else f"no interface has Ray's address {host}: set nic to one of {listed}"
    if nic in own:
        return Reached(host, nic)
    others = [str(its.ip) for name, its in found if name == nic]
    return Reached(others[0], nic) if others else f"it has no interface {nic} with an IPv4 address, but {listed}"


def _interfaces() -> Iterator[tuple[str, IPv4Interface]]:
    for name, addresses in psutil.net_if_addrs().items():
        for one in addresses:
            if one.family == socket.AF_INET and one.netmask:
                yield name, IPv4Interface(f"{one.address}/{one.netmask}")
