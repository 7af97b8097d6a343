"""What an address says about who can reach it."""

from __future__ import annotations

import ipaddress
from functools import lru_cache


@lru_cache(maxsize=256)  # the router asks about every request's Host header
def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address) can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=256)
def is_address(host: str) -> bool:
    """Whether `host` is an address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
