"""A running fleet at this moment, asked from all its servers at once: what `psserve status` shows."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from psserve.errors import FleetError
from psserve.fleet.control import client_of, live_state, router_config_of
from psserve.fleet.http import HttpClient
from psserve.fleet.load import Totals, read_load, read_totals
from psserve.fleet.memory_use import family, gpu_memory, main_memory, of_family
from psserve.fleet.state import FleetState, ServerState, running_fleet
from psserve.loads import Load
from psserve.versions import versions

ANSWER_S = 1.0
"""A server that is silent for so long is shown without what it would have said."""

Answer = TypeVar("Answer")


class ServerOverview(ServerState):
    """One server, or the router. None: not known, or not asked of this role."""

    memory_bytes: int | None = None
    """Main memory of its processes; pages that several processes share are counted in parts (PSS)."""
    gpu_memory_bytes: int | None = None
    running: int | None = None
    queued: int | None = None
    cache_hit_rate: float | None = None
    """Of the prompt tokens since the start, those whose KV the base had: of a prefill server those that it was sent, of
    a decode server those of its module, of the router all."""
    kv_tokens: int | None = None
    kv_used_tokens: int | None = None
    """KV slots that requests hold. What the cache keeps gives way and is not counted."""
    uptime_s: float | None = None


class FleetOverview(FleetState):
    """A running fleet, with more on each server than its state file has."""

    servers: tuple[ServerOverview, ...]
    versions: dict[str, str]


@dataclass(frozen=True)
class _Said:
    """What one server said of itself; None where it said nothing."""

    load: Load | None = None
    totals: Totals | None = None


def survey(zoo: Path) -> FleetOverview:
    """Ask the supervisor's file, the router, every server, and the system. Takes a second or two at worst.

    Raises:
        NotRunning: no fleet runs for this zoo.
    """
    state = running_fleet(zoo)
    key = worker_key_of(zoo)
    with ThreadPoolExecutor(max_workers=len(state.servers) + 2) as pool:
        on_gpus = pool.submit(gpu_memory)
        live = pool.submit(live_state, zoo)
        asked = {server.name: pool.submit(_ask, zoo, state, server, key) for server in state.servers}
        said = {name: future.result() for name, future in asked.items()}
        gpu_bytes, state = on_gpus.result(), live.result()
    router = next((one.totals for name, one in said.items() if name == "router"), None)
    servers = tuple(_overview(server, said.get(server.name, _Said()), router, gpu_bytes) for server in state.servers)
    fields = state.model_dump(exclude={"servers"})
    return FleetOverview(**fields, servers=servers, versions=versions())


def worker_key_of(zoo: Path) -> str | None:
    """What the running fleet's servers require, which only its user can read."""
    key = router_config_of(zoo).get("worker_key")
    return key if isinstance(key, str) else None


def _ask(zoo: Path, state: FleetState, server: ServerState, worker_key: str | None) -> _Said:
    if server.pid is None:
        return _Said()
    if server.role == "router":
        return _Said(totals=_or_none(read_totals, client_of(zoo, state.url)))
    client = HttpClient(f"http://127.0.0.1:{server.port}", worker_key)
    load = _or_none(read_load, client)
    if load is None or server.role == "decode":
        return _Said(load)
    return _Said(load, _or_none(read_totals, client))


def _or_none(read: Callable[[HttpClient, float], Answer], client: HttpClient) -> Answer | None:
    try:
        return read(client, ANSWER_S)
    except FleetError:
        return None


def _overview(server: ServerState, said: _Said, router: Totals | None, on_gpus: dict[int, int]) -> ServerOverview:
    processes = family(server.pid) if server.pid is not None else []
    load = said.load
    running = load.running if load else None
    if server.role == "router" and router is not None:
        running = int(router["psserve_inflight_requests", ""])
    return ServerOverview(
        **server.model_dump(),
        memory_bytes=main_memory(processes),
        gpu_memory_bytes=of_family(processes, on_gpus),
        running=running,
        queued=load.queued if load else None,
        cache_hit_rate=_hit_rate(server, said.totals, router),
        kv_tokens=load.kv_tokens if load else None,
        kv_used_tokens=load.kv_used_tokens if load else None,
        uptime_s=time.time() - server.started if processes and server.started is not None else None,
    )


def _hit_rate(server: ServerState, own: Totals | None, router: Totals | None) -> float | None:
    totals, prefix = (own, "sglang:") if server.role == "prefill" else (router, "psserve_")
    if totals is None:
        return None

    def total(name: str) -> float:
        wanted = server.module if server.role == "decode" else None
        found = ((module, value) for (sample, module), value in totals.items() if sample == prefix + name)
        return sum(value for module, value in found if wanted in (None, module))

    prompt = total("prompt_tokens_total")
    return total("cached_tokens_total") / prompt if prompt else None
