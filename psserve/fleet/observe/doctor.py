"""Can this machine serve, and how are its zoo and fleet? One line a check: what was found and, if need be, what to do.

Nothing heavy is imported: versions come from package metadata, transfer backends are looked up and not loaded.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path

import psserve
from psserve.engine.versions import SUPPORTED
from psserve.errors import FleetError, NotRunning, PsserveError, UsageError, ZooError, ZooNotFound
from psserve.fleet.observe.control import client_of, modules_by_server, router_config_of
from psserve.fleet.observe.diagnosis import Diagnosis
from psserve.fleet.observe.gpu_checks import check_gpus, check_sharing, mps_runs
from psserve.fleet.observe.lease_checks import check_leases
from psserve.fleet.observe.overview import FleetOverview, ServerOverview, survey
from psserve.fleet.options.config_file import FLEET_FILE, Flags, load_options
from psserve.fleet.options.key_file import client_keys
from psserve.fleet.options.options import FleetOptions
from psserve.fleet.plan.allowance import GIB
from psserve.fleet.plan.devices import Machine, detect
from psserve.fleet.plan.host import LOCAL
from psserve.fleet.plan.memory import amount
from psserve.fleet.plan.plan import make_plan
from psserve.fleet.plan.planned import chosen_modules
from psserve.fleet.plan.ports import obstacle
from psserve.fleet.plan.reach import check_reach
from psserve.fleet.plan.show import named
from psserve.fleet.plan.spec import FleetPlan
from psserve.fleet.run.probe import look
from psserve.fleet.run.reachability import tasks_of
from psserve.fleet.run.router_client import RouterClient
from psserve.fleet.run.state import FleetState, running_fleet
from psserve.versions import installed
from psserve.zoo import Zoo, find_zoo
from psserve.zoo.disk.versions import kept_versions

CPU_SERVER_BYTES = 2 * GIB
"""What one SGLang server on CPU takes beside weights and KV: its three processes, measured."""
SMALLEST_FLEET = 2
"""Servers: one for prefill, one for decode."""
ENOUGH_FILES = 4096
"""Open files: a streamed request holds two connections in the router and one each in two servers."""
ENOUGH_SHM = GIB // 4
ENOUGH_SHM_CPU = GIB // 32
"""Without GPUs: half of the 64 MiB that containers get. UCX takes 34 MiB for four servers, and does with less."""
ASKED = 8
"""Modules of those that share servers, which are asked for an answer: the first ones."""
REQUEST_S = 30.0
"""A module that has not answered one token by then is of no use."""
SETTLE_S = 5.0
"""After a request, both servers free its KV within a step or two; an idle CPU server looks every second or so."""


def examine(zoo_dir: Path | None, port: int | None) -> list[Diagnosis]:
    """All checks, of the zoo that `find_zoo(zoo_dir)` finds. `port`: the router's to be; None: as configured."""
    machine = detect()
    zoo, of_zoo = check_zoo(zoo_dir)
    options, of_config = check_fleet_file(zoo)
    state, of_state = find_fleet(zoo)
    findings = [*check_machine(machine), *of_zoo]
    if zoo is not None:
        findings += [check_disk(zoo), *of_config]
    if state is None:
        port = options.router.port if port is None else port
        here = _servers(zoo) if options.cluster is None else 0
        findings += [check_memory(machine, here), check_port(port, obstacle(port, options.router.host))]
        return [*findings, *check_plan(zoo, options, machine), *of_state]
    assert zoo is not None, "a fleet is found by its zoo"
    return [*findings, *check_fleet(zoo.path, state)]


# --- the machine


def check_machine(machine: Machine) -> list[Diagnosis]:
    """Check what is installed, and what the machine has."""
    soft_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return [
        Diagnosis("psserve", "ok", psserve.__version__),
        check_python(sys.version_info[:3]),
        check_requirements(requires("psserve") or (), installed),
        check_sglang(installed("sglang")),
        check_torch(installed("torch"), machine),
        check_transfer(lambda name: find_spec(name) is not None),
        check_device(machine),
        *check_gpus(machine),
        check_shared_memory(_free_shm(), machine),
        check_open_files(soft_files),
    ]


def check_python(found: tuple[int, int, int]) -> Diagnosis:
    text = ".".join(map(str, found))
    if (3, 11) <= found[:2] <= (3, 12):
        return Diagnosis("python", "ok", text)
    return Diagnosis("python", "fail", text, "use Python 3.11 or 3.12: make setup PYTHON=/path/to/python3.11")


def check_requirements(required: Iterable[str], installed: Callable[[str], str | None]) -> Diagnosis:
    """`required` as in package metadata ("name>=1; marker"): all must be there, those pinned by == at that version."""
    wrong, count = [], 0
    for line in required:
        if "extra ==" in line:
            continue
        count += 1
        name = re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]
        found = installed(name)
        pinned = re.search(r"==([^,; ]+)", line.partition(";")[0])
        if found is None:
            wrong.append(f"{name} is missing")
        elif pinned and found != pinned[1]:
            wrong.append(f"{name} is {found}, not {pinned[1]}")
    if wrong:
        return Diagnosis("packages", "fail", ", ".join(wrong), "run make setup")
    return Diagnosis("packages", "ok", f"{count} required packages are installed")


def check_sglang(found: str | None) -> Diagnosis:
    tested = " and ".join(SUPPORTED)
    if found is None:
        return Diagnosis("sglang", "fail", "not installed", f"run make setup (tested: {tested})")
    if found not in SUPPORTED:
        return Diagnosis("sglang", "fail", f"{found} is not supported", f"install one of the tested versions: {tested}")
    return Diagnosis("sglang", "ok", found)


def check_torch(found: str | None, machine: Machine) -> Diagnosis:
    if found is None:
        return Diagnosis("torch", "fail", "not installed", "run make setup")
    if machine.gpus and found.endswith("+cpu"):
        return Diagnosis("torch", "fail", f"{found} cannot use the GPU", "run make clean, then make setup DEVICE=gpu")
    return Diagnosis("torch", "ok", found)


def check_device(machine: Machine) -> Diagnosis:
    if machine.unusable:
        advice = "choose others with CUDA_VISIBLE_DEVICES, or launch with --device cpu"
        return Diagnosis("device", "fail", "; ".join(machine.unusable), advice)
    if machine.gpus:
        listing = ", ".join(f"{g.name} ({amount(g.free_bytes)} of {amount(g.total_bytes)} free)" for g in machine.gpus)
        return Diagnosis("device", "ok", f"{len(machine.gpus)} NVIDIA GPU: {listing}")
    return Diagnosis("device", "ok", f"CPU, {machine.cores} cores; no NVIDIA GPU is visible")


def check_memory(machine: Machine, servers: int) -> Diagnosis:
    """Main memory, for `servers` SGLang servers. Weights come on top; `psserve launch` plans with those."""
    found = f"{amount(machine.available_bytes)} of {amount(machine.total_bytes)} free"
    need = servers * CPU_SERVER_BYTES
    if machine.available_bytes >= need:
        return Diagnosis("memory", "ok", found)
    advice = f"{servers} servers take about {amount(need)}: stop other programs, or serve fewer --modules"
    return Diagnosis("memory", "warn", found, advice)


def check_shared_memory(free_bytes: int | None, machine: Machine) -> Diagnosis:
    if free_bytes is None:
        return Diagnosis("/dev/shm", "warn", "missing", "mount it: SGLang's processes share tensors there")
    enough, size = (ENOUGH_SHM, "1 GiB (docker run --shm-size 1g)") if machine.gpus else (ENOUGH_SHM_CPU, "64 MiB")
    if free_bytes < enough:
        return Diagnosis("/dev/shm", "warn", f"{amount(free_bytes)} free", f"give it {size}")
    return Diagnosis("/dev/shm", "ok", f"{amount(free_bytes)} free")


def check_transfer(importable: Callable[[str], bool]) -> Diagnosis:
    backends = {
        "nixl": importable("nixl") and (importable("nixl_cu13") or importable("nixl_cu12")),
        "mooncake": importable("mooncake"),
    }
    there = [name for name, found in backends.items() if found]
    if "nixl" in there:
        return Diagnosis("transfer", "ok", ", ".join(there))
    if there:
        return Diagnosis(
            "transfer", "warn", "mooncake only", "launch with --transfer mooncake, or run make setup for nixl"
        )
    return Diagnosis("transfer", "fail", "neither nixl nor mooncake is installed", "run make setup")


def check_port(port: int, obstacle: str | None) -> Diagnosis:
    """`obstacle`: why the router could not listen there; None: it could."""
    if obstacle is None:
        return Diagnosis("port", "ok", f"{port} is free")
    advice = "see psserve status; psserve launch --port 0 takes a free one"
    return Diagnosis("port", "warn", f"{port} {obstacle}", advice)


def check_open_files(soft_limit: int) -> Diagnosis:
    unlimited = soft_limit == resource.RLIM_INFINITY
    found = "unlimited" if unlimited else str(soft_limit)
    if unlimited or soft_limit >= ENOUGH_FILES:
        return Diagnosis("open files", "ok", found)
    return Diagnosis("open files", "warn", found, f"many requests at once need more: ulimit -n {16 * ENOUGH_FILES}")


def _servers(zoo: Zoo | None) -> int:
    if zoo is None:
        return SMALLEST_FLEET
    sharing = [module.shares_servers for module in zoo.modules()]
    return 1 + max(1, len(sharing) - sum(sharing) + any(sharing))


def _free_shm() -> int | None:
    return shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else None


# --- the zoo


def check_zoo(explicit: Path | None) -> tuple[Zoo | None, list[Diagnosis]]:
    """The zoo, if one is found and readable. A missing one is no failure unless it was asked for by name."""
    try:
        zoo = Zoo.open(find_zoo(explicit))
        scan = zoo.scan()
    except ZooNotFound as error:
        return None, [Diagnosis("zoo", "warn" if explicit is None else "fail", str(error))]
    except (ZooError, OSError) as error:
        return None, [Diagnosis("zoo", "fail", str(error))]
    damaged = [Diagnosis("module", "fail", str(error)) for error in scan.damaged.values()]
    if not scan.modules:
        advice = "psserve add-model NAME --path DIR adds one"
        return zoo, [Diagnosis("zoo", "warn", f"{zoo.path} has no module that can be served", advice), *damaged]
    names = named([module.name for module in scan.modules])
    return zoo, [Diagnosis("zoo", "ok", f"{zoo.path}: base {zoo.base.name}, modules {names}"), *damaged]


def check_disk(zoo: Zoo) -> Diagnosis:
    """Whether one more module would fit that is stored as the largest there is; if there is none, a copy."""
    modules = zoo.modules()
    sizes = [module.disk_bytes for module in modules]
    older = sum(version.disk_bytes for module in modules for version in kept_versions(module, zoo.base))
    free = shutil.disk_usage(zoo.path).free
    kept = f", older versions of them at most {amount(older)}" if older else ""
    found = f"modules take {amount(sum(sizes))}{kept}; {amount(free)} free"
    largest = max(sizes, default=zoo.base.weight_bytes)
    if free >= largest:
        return Diagnosis("disk", "ok", found)
    advice = f"one more module takes up to {amount(largest)}: free some space, or add it with --store delta"
    if older:
        advice += "; `psserve remove-model NAME@VERSION` deletes an older version"
    return Diagnosis("disk", "warn", found, advice)


def check_fleet_file(zoo: Zoo | None) -> tuple[FleetOptions, list[Diagnosis]]:
    """The options that `psserve launch` takes without flags, and how the zoo's fleet.toml is, if it has one."""
    if zoo is None or not (zoo.path / FLEET_FILE).exists():
        return FleetOptions(), []
    try:
        options = load_options(zoo.path, None, Flags())
    except UsageError as error:
        return FleetOptions(), [Diagnosis(FLEET_FILE, "fail", str(error))]
    return options, [Diagnosis(FLEET_FILE, "ok", f"{zoo.path / FLEET_FILE} is understood")]


def check_plan(zoo: Zoo | None, options: FleetOptions, machine: Machine) -> list[Diagnosis]:
    """Whether the fleet of `options` could be planned on this machine. Its port has a check of its own."""
    if zoo is None or not zoo.modules():
        return []
    if options.cluster is not None:
        return check_cluster(zoo, options, has_ray=find_spec("ray") is not None)
    any_port = options.model_copy(update={"router": options.router.model_copy(update={"port": 0})})
    try:
        plan = make_plan(zoo, any_port, keys=client_keys(options, zoo.path), machine=machine)
    except PsserveError as error:
        return [Diagnosis("plan", "fail", str(error))]
    devices = ", ".join(sorted({server.device for server in plan.servers}))
    total = amount(sum(server.memory.total_bytes for server in plan.servers))
    found = f"{len(plan.servers)} servers on {devices}, {total} for weights and KV cache"
    return [Diagnosis("plan", "ok", found), *check_network(plan), *check_sharing(plan, mps_runs())]


def check_cluster(zoo: Zoo, options: FleetOptions, *, has_ray: bool) -> list[Diagnosis]:
    """What this machine can say of a fleet over a cluster. Its machines are asked by `psserve launch`, which plans."""
    if not has_ray:
        return [Diagnosis("ray", "fail", "[cluster] needs Ray, and it is not installed", "pip install 'psserve[ray]'")]
    try:
        check_reach(options, client_keys(options, zoo.path))
        chosen_modules(zoo, options)
    except PsserveError as error:
        return [Diagnosis("plan", "fail", str(error))]
    found = (
        "made over the [cluster] by psserve launch, which checks there that its machines have the same software and the"
        " zoo, that the servers fit, and that they reach each other; psserve launch --dry-run shows where they would go"
    )
    return [Diagnosis("plan", "ok", found)]


def check_network(plan: FleetPlan) -> list[Diagnosis]:
    """What keeps servers from listening where the plan has them, which env in fleet.toml may change. Mostly nothing."""
    task = next(task for task in tasks_of(plan) if task.name == LOCAL)
    with ExitStack() as opened:
        report = asyncio.run(look(task, opened))
    advice = "correct it, or take it out of env in fleet.toml"
    return [Diagnosis("network", "fail", found, advice) for found in report.here]


# --- the fleet


def find_fleet(zoo: Zoo | None) -> tuple[FleetState | None, list[Diagnosis]]:
    """The zoo's fleet, or what is said where none runs."""
    if zoo is None:
        return None, []
    try:
        return running_fleet(zoo.path), []
    except NotRunning:
        return None, [Diagnosis("fleet", "ok", "none runs; psserve launch starts one")]
    except FleetError as error:
        return None, [Diagnosis("fleet", "fail", str(error))]


def check_fleet(zoo: Path, state: FleetState) -> list[Diagnosis]:
    """Every check of the fleet in `state`. Sends one short request to each module, or some where many share servers."""
    modules = [name for served in modules_by_server(zoo).values() for name in served[:ASKED]]
    client = client_of(zoo, state.url)
    try:
        servers = [check_server(server) for server in survey(zoo).servers]
        requests = [check_request(client, module) for module in modules]
        settled = _settled(zoo)
        leases = check_leases(settled, router_config_of(zoo).get("request_timeout_s", math.inf))
        return [Diagnosis("fleet", "ok", f"runs at {state.url}"), *servers, *requests, check_kv(settled), *leases]
    except NotRunning:
        return [Diagnosis("fleet", "fail", f"the fleet at {state.url} ended just now", "psserve logs supervisor")]


def check_server(server: ServerOverview) -> Diagnosis:
    """Check which state a server is in, and whether it had to be restarted."""
    logs = f"see psserve logs {server.name}"
    if server.state != "ready":
        return Diagnosis(server.name, "fail", f"{server.state}: {server.error or 'no answer yet'}", logs)
    if server.restarts:
        return Diagnosis(server.name, "warn", f"ready, after {server.restarts} restarts", f"{logs} for why it ended")
    return Diagnosis(server.name, "ok", "ready")


def check_request(client: RouterClient, module: str) -> Diagnosis:
    """Ask a module for one token, the way clients do."""
    started = time.monotonic()
    try:
        for _ in client.chat(module, [{"role": "user", "content": "Hello"}], max_tokens=1, timeout_s=REQUEST_S):
            pass
    except FleetError as error:
        return Diagnosis("request", "fail", f"{module}: {error}", f"see psserve status, and psserve logs {module}")
    return Diagnosis("request", "ok", f"{module} answers, in {(time.monotonic() - started) * 1000:.0f} ms")


def check_kv(fleet: FleetOverview) -> Diagnosis:
    """Check that servers without requests hold no KV slots: then nothing leaks."""
    known = [server for server in fleet.servers if server.kv_used_tokens is not None]
    if not known:
        return Diagnosis("KV cache", "warn", "no server says how much it uses", "see psserve status")
    if not all(map(_is_idle, known)):
        return Diagnosis("KV cache", "ok", "in use by requests; look again when the fleet is idle")
    holding = [f"{server.name} holds {server.kv_used_tokens} tokens" for server in known if server.kv_used_tokens]
    if holding:
        advice = "report it with psserve logs; psserve stop and psserve launch free them"
        return Diagnosis("KV cache", "fail", f"{', '.join(holding)} and has no request", advice)
    return Diagnosis("KV cache", "ok", f"all slots of {len(known)} servers are free or hold cache")


def _is_idle(server: ServerOverview) -> bool:
    return not server.running and not server.queued


def _settled(zoo: Path) -> FleetOverview:
    """The fleet once it is idle, holds no KV and lends none, or as it is after a while."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        fleet = survey(zoo)
        if not any(map(_holds, fleet.servers)) or time.monotonic() > deadline:
            return fleet
        time.sleep(0.2)


def _holds(server: ServerOverview) -> bool:
    return bool(server.kv_used_tokens or (server.kv_leases and server.kv_leases.count))
