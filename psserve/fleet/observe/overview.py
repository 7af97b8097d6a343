"""A running fleet at this moment, asked from all its servers at once: what `psserve status` shows."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
from pydantic import BaseModel

from psserve.contracts.router_config import VERSION_MARK
from psserve.contracts.servers import LOADS_PATH, METRICS_PATH, KvLeases, ServerLoad, parse_server_load
from psserve.errors import FleetError
from psserve.fleet.observe.control import client_of, live_state, modules_by_server, router_config_of
from psserve.fleet.plan.host import LOCAL
from psserve.fleet.plan.layout import run_dir
from psserve.fleet.run.memory import MemoryUse, gpu_memory, memory_use, read_uses
from psserve.fleet.run.router_client import HttpClient
from psserve.fleet.run.state import FleetState, ServerState, running_fleet
from psserve.versions import versions

SILENT_AFTER_S = 1.0
"""A server that is silent for so long is shown without what it would have said."""
Totals = defaultdict[tuple[str, str], float]
Read = TypeVar("Read")


class ServerOverview(ServerState):
    """One server, or the router. None: not known, or not asked of this role."""

    memory_bytes: int | None = None
    """Main memory of its processes; pages that several processes share are counted in parts (PSS)."""
    gpu_memory_bytes: int | None = None
    running: int | None = None
    queued: int | None = None
    cache_hit_rate: float | None = None
    """Of the prompt tokens since the start, those whose KV the base had: of a prefill server those that it was sent, of
    a decode server those of its module or modules, of the router all."""
    sharing: int | None = None
    """Modules that share it as adapters, on a server that has no module of its own."""
    processes: int | None = None
    """Of the router: how many listen on its port."""
    kv_tokens: int | None = None
    kv_used_tokens: int | None = None
    """KV slots that requests hold. What the cache keeps gives way and is not counted."""
    kv_leases: KvLeases | None = None
    """What a prefill server lends, where decode servers read prompts in its pool."""
    uptime_s: float | None = None


class TrialOverview(BaseModel):
    """A version of a module on trial beside another one. None: the router did not answer."""

    module: str
    version: int
    beside: int
    """The zoo's number of the version that answers all other sessions."""
    share: float
    """Percent of the sessions that it answers."""
    shadow: bool
    """Whether it answers copies of the others' requests."""
    requests: int | None
    """Requests that it has answered in this fleet."""
    requests_beside: int | None


class FleetOverview(FleetState):
    """A running fleet, with more on each server than its state file has."""

    servers: tuple[ServerOverview, ...]
    trials: tuple[TrialOverview, ...] = ()
    one_pool: bool = False
    """Whether decode servers read prompts in the prefill servers' pools."""
    versions: dict[str, str]


@dataclass(frozen=True)
class _Said:
    """One server's word of itself; None where it said nothing."""

    load: ServerLoad | None = None
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
    modules, elsewhere = modules_by_server(zoo), read_uses(run_dir(zoo))
    found = tuple(
        _overview(
            server,
            said.get(server.name, _Said()),
            router,
            memory_use(server.pid, gpu_bytes) if server.pid is not None else elsewhere.get(server.name, MemoryUse()),
            modules.get(server.module or "", []),
        )
        for server in state.servers
    )
    config = router_config_of(zoo)
    processes = config.get("router_workers", 1)
    servers = tuple(one.model_copy(update={"processes": processes}) if one.role == "router" else one for one in found)
    fields = state.model_dump(exclude={"servers"})
    return FleetOverview(
        **fields,
        servers=servers,
        trials=tuple(_trials(config.get("modules", ()), router)),
        one_pool=config.get("one_pool", False),
        versions=versions(),
    )


def _trials(modules: Iterable[Mapping[str, Any]], router: Totals | None) -> Iterator[TrialOverview]:
    """`modules`: as the router was told of them."""

    def answered(module: str, version: int) -> int | None:
        name = f"{module}{VERSION_MARK}{version}"
        return None if router is None else int(router["psserve_version_requests_total", name])

    for module in modules:
        if trial := module.get("trial"):
            name, version, beside = module["name"], trial["zoo_version"], module["zoo_version"] or module["version"]
            yield TrialOverview(
                module=name,
                version=version,
                beside=beside,
                share=trial["share"],
                shadow=trial["shadow"],
                requests=answered(name, version),
                requests_beside=answered(name, beside),
            )


def worker_key_of(zoo: Path) -> str | None:
    """The key that the running fleet's servers require, which only its user can read."""
    key = router_config_of(zoo).get("worker_key")
    return key if isinstance(key, str) else None


def _ask(zoo: Path, state: FleetState, server: ServerState, worker_key: str | None) -> _Said:
    if not server.may_answer:
        return _Said()
    if server.role == "router":
        return _Said(totals=_or_none(read_totals, client_of(zoo, state.url)))
    client = HttpClient(f"http://{server.address}:{server.port}", worker_key)
    load = _or_none(read_load, client)
    if load is None or server.role == "decode":
        return _Said(load)
    return _Said(load, _or_none(read_totals, client))


def _or_none(read: Callable[[HttpClient, float], Read], client: HttpClient) -> Read | None:
    try:
        return read(client, SILENT_AFTER_S)
    except FleetError:
        return None


def _overview(
    server: ServerState, said: _Said, router: Totals | None, memory: MemoryUse, modules: list[str]
) -> ServerOverview:
    """`modules`: those that a decode server serves."""
    load = said.load
    running = load.running if load else None
    if server.role == "router" and router is not None:
        running = int(router["psserve_inflight_requests", ""])
    return ServerOverview(
        **server.model_dump(),
        memory_bytes=memory.main_bytes,
        gpu_memory_bytes=memory.gpu_bytes,
        running=running,
        queued=load.queued if load else None,
        cache_hit_rate=_hit_rate(server, said.totals, router, {server.module or "", *modules}),
        sharing=None if not modules or server.module in modules else len(modules),
        kv_tokens=load.kv_tokens if load else None,
        kv_used_tokens=load.kv_used_tokens if load else None,
        kv_leases=_leases(said.totals) if server.role == "prefill" else None,
        uptime_s=time.time() - server.started if _runs(server) and server.started is not None else None,
    )


def _runs(server: ServerState) -> bool:
    """Whether it runs: on this machine its process tells, of another one its supervisor."""
    if server.host != LOCAL:
        return server.may_answer
    return server.pid is not None and psutil.pid_exists(server.pid)


def _leases(totals: Totals | None) -> KvLeases | None:
    return None if totals is None else KvLeases.of({name: value for (name, _), value in totals.items()})


def _hit_rate(server: ServerState, own: Totals | None, router: Totals | None, modules: set[str]) -> float | None:
    totals, prefix = (own, "sglang:") if server.role == "prefill" else (router, "psserve_")
    if totals is None:
        return None

    def total(name: str) -> float:
        found = ((module, value) for (sample, module), value in totals.items() if sample == prefix + name)
        return sum(value for module, value in found if server.role != "decode" or module in modules)

    prompt = total("prompt_tokens_total")
    return total("cached_tokens_total") / prompt if prompt else None


# --- what servers say of themselves


def read_load(server: HttpClient, timeout_s: float) -> ServerLoad:
    """Ask an SGLang server, with the worker key. Raises FleetError if it does not answer in SGLang's form."""
    body = server.get(LOADS_PATH, timeout_s)
    try:
        return parse_server_load(body)
    except ValueError as error:
        raise FleetError(f"{server.url}/v1/loads answered in a form that psserve does not know") from error


def read_totals(server: HttpClient, timeout_s: float) -> Totals:
    """Samples of `/metrics`, summed: (name, its `module` label or "") -> value. Raises FleetError as `read_load`.

    What is counted by a module's version has MODULE@VERSION in place of the label.
    """
    from prometheus_client.parser import text_string_to_metric_families

    totals: Totals = defaultdict(float)
    text = server.get(METRICS_PATH, timeout_s).decode(errors="replace")
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                module, version = sample.labels.get("module", ""), sample.labels.get("version", "")
                subject = f"{module}{VERSION_MARK}{version}" if module and version else module
                totals[sample.name, subject] += sample.value
    except ValueError as error:
        raise FleetError(f"{server.url}/metrics answered in a form that psserve does not know") from error
    return totals
