"""Who can reach the router, and what is asked of them: keys, certificate, names."""

from __future__ import annotations

from psserve.contracts.addresses import is_loopback
from psserve.contracts.tls import server_context
from psserve.errors import UsageError
from psserve.fleet.options.key_file import ClientKeys
from psserve.fleet.options.options import FleetOptions


def check_reach(options: FleetOptions, keys: ClientKeys) -> None:
    """Raise UsageError if the router would be open to other machines without a key, or cannot use its certificate."""
    host, router = options.router.host, options.router
    if not (is_loopback(host) or router.insecure or _has_key(keys)):
        raise UsageError(
            f"{options.said('router.host', host)} is open to other machines: make a key with `psserve keys add NAME`,"
            " or use 127.0.0.1 (--insecure lets anybody in)"
        )
    if router.ssl_certfile is not None and router.ssl_keyfile is not None:
        server_context(options.folder / router.ssl_certfile, options.folder / router.ssl_keyfile)


def reach_warnings(options: FleetOptions, keys: ClientKeys) -> list[str]:
    """Warnings for a user who opens a router to other machines."""
    if is_loopback(options.router.host):
        return []
    said = []
    if not _has_key(keys):
        said.append("anybody who reaches this machine can use the fleet: `psserve keys add NAME` makes a key")
    if options.router.ssl_certfile is None:
        said.append("keys and prompts travel unencrypted: give --ssl-certfile, or put a TLS proxy in front")
    return said


def _has_key(keys: ClientKeys) -> bool:
    return keys.plain is not None or bool(keys.keys)
