"""The gate: what is checked of every request before anything else looks at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from psserve.contracts.addresses import is_address
from psserve.contracts.router_config import RouterConfig
from psserve.errors import RequestError
from psserve.router.access.clients import CLIENT
from psserve.router.dashboard.routes import PAGE_FILES
from psserve.router.endpoints.drain import DRAIN_PATH
from psserve.router.observability.exchange import EXCHANGE
from psserve.router.state import STATE

OPEN_PATHS = frozenset({"/health", "/liveness", "/readiness", "/metrics", "/engine_metrics", DRAIN_PATH, *PAGE_FILES})
"""Need no client's key, and answer while the router drains."""
ADMIN_PATHS = frozenset({"/workers", "/server_info", "/dashboard/data"})
"""About the fleet, not about answers: for keys with `admin`."""


def enter(request: web.Request) -> None:
    """Let a request in. Raises RequestError: 431 (header), 403 (host, path), 401 (key), 503 (draining)."""
    state = request.app[STATE]
    _check_header(request, state.config.limits.header_bytes)
    _check_host(request, state.config)
    if request.path in OPEN_PATHS:
        return
    client = request[CLIENT] = state.clients.of(request.headers)
    if request.path in ADMIN_PATHS and not client.key.admin:
        raise RequestError(403, "this key is not for the fleet's own affairs", code="admin_key_required")
    if state.draining:
        message = "the server is shutting down"
        raise RequestError(503, message, type="service_unavailable_error", code="server_is_overloaded", retry_after=5)


@contextmanager
def metered(request: web.Request) -> Iterator[None]:
    """The request is served meanwhile, on its key's account if it asks for work. Raises RequestError (429)."""
    client = request.get(CLIENT)
    if client is None or request.method != "POST":
        yield
        return
    exchange = request[EXCHANGE]
    exchange.key_name = client.key.name
    with client.rates.admitted():
        try:
            yield
        finally:
            client.rates.spend(exchange.used_tokens)


async def tell_rates(request: web.Request, response: web.StreamResponse) -> None:
    """Tell a client what is left to it (aiohttp's on_response_prepare)."""
    if (client := request.get(CLIENT)) is not None:
        response.headers.update(client.rates.headers())


def _check_header(request: web.Request, limit: int) -> None:
    # 4: what separates name, value and lines.
    size = sum(len(name) + len(value) + 4 for name, value in request.raw_headers) + len(request.raw_path)
    if size > limit:
        raise RequestError(431, f"the header is larger than {limit} bytes", code="header_too_large")


def _check_host(request: web.Request, config: RouterConfig) -> None:
    """Refuse foreign names: a web page can point a name of its own at this machine (DNS rebinding), no address."""
    if config.needs_key and not config.allowed_hosts:
        return  # such a page has no key
    if "Host" not in request.headers:
        return  # no browser leaves it out; HTTP/1.0 clients do, health checks of load balancers among them
    host = _host_name(request.headers["Host"])
    if host == "localhost" or host in config.allowed_hosts or is_address(host):
        return
    message = "this server is not known by that name: use localhost or its address, or add it to allowed_hosts"
    raise RequestError(403, message, code="forbidden_host")


def _host_name(header: str) -> str:
    """The host of a Host header, without the port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()
