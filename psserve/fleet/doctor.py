"""Can this machine serve, and how are its zoo and fleet? One line a check: what was found and, if need be, what to do.

Nothing heavy is imported: versions come from package metadata, transfer backends are looked up and not loaded.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path

import psserve
from psserve.engine.versions import SUPPORTED
from psserve.fleet.devices import Machine, detect
from psserve.fleet.doctor_fleet import check_fleet, find_fleet
from psserve.fleet.doctor_zoo import check_config, check_disk, check_plan, check_zoo
from psserve.fleet.finding import Finding
from psserve.fleet.memory import GIB, amount
from psserve.fleet.ports import is_free
from psserve.versions import installed
from psserve.zoo import Zoo

CPU_SERVER_BYTES = 2 * GIB
"""What one SGLang server on CPU takes beside weights and KV: its three processes, measured."""
SMALLEST_FLEET = 2
"""Servers: one for prefill, one for decode."""
ENOUGH_FILES = 4096
"""Open files: a streamed request holds two connections in the router and one each in two servers."""
ENOUGH_SHM = GIB // 4


def examine(zoo_dir: Path | None, port: int | None) -> list[Finding]:
    """All checks, of the zoo that `find_zoo(zoo_dir)` finds. `port`: the router's to be; None: as configured."""
    machine = detect()
    zoo, of_zoo = check_zoo(zoo_dir)
    options, of_config = check_config(zoo)
    state, of_state = find_fleet(zoo)
    findings = [*check_machine(machine), *of_zoo]
    if zoo is not None:
        findings += [check_disk(zoo), *of_config]
    if state is None:
        port = options.router.port if port is None else port
        findings += [check_memory(machine, _servers(zoo)), check_port(port, free=is_free(port))]
        return [*findings, *check_plan(zoo, options, machine), *of_state]
    assert zoo is not None, "a fleet is found by its zoo"
    return [*findings, *check_fleet(zoo.path, state)]


def check_machine(machine: Machine) -> list[Finding]:
    """What is installed, and what the machine has."""
    soft_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return [
        Finding("psserve", "ok", psserve.__version__),
        check_python(sys.version_info[:3]),
        check_requirements(requires("psserve") or (), installed),
        check_sglang(installed("sglang")),
        check_torch(installed("torch"), machine),
        check_transfer(lambda name: find_spec(name) is not None),
        check_device(machine),
        check_shared_memory(_free_shm()),
        check_open_files(soft_files),
    ]


def check_python(found: tuple[int, int, int]) -> Finding:
    text = ".".join(map(str, found))
    if (3, 11) <= found[:2] <= (3, 12):
        return Finding("python", "ok", text)
    return Finding("python", "fail", text, "use Python 3.11 or 3.12: make setup PYTHON=/path/to/python3.11")


def check_requirements(required: Iterable[str], installed: Callable[[str], str | None]) -> Finding:
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
        return Finding("packages", "fail", ", ".join(wrong), "run make setup")
    return Finding("packages", "ok", f"{count} required packages are installed")


def check_sglang(found: str | None) -> Finding:
    tested = " and ".join(SUPPORTED)
    if found is None:
        return Finding("sglang", "fail", "not installed", f"run make setup (tested: {tested})")
    if found not in SUPPORTED:
        return Finding("sglang", "fail", f"{found} is not supported", f"install one of the tested versions: {tested}")
    return Finding("sglang", "ok", found)


def check_torch(found: str | None, machine: Machine) -> Finding:
    if found is None:
        return Finding("torch", "fail", "not installed", "run make setup")
    if machine.gpus and found.endswith("+cpu"):
        return Finding("torch", "warn", f"{found} cannot use the GPU", "run make clean, then make setup DEVICE=gpu")
    return Finding("torch", "ok", found)


def check_device(machine: Machine) -> Finding:
    if machine.gpus:
        listing = ", ".join(f"{g.name} ({amount(g.free_bytes)} of {amount(g.total_bytes)} free)" for g in machine.gpus)
        return Finding("device", "ok", f"{len(machine.gpus)} NVIDIA GPU: {listing}")
    return Finding("device", "ok", f"CPU, {machine.cores} cores; no NVIDIA GPU is visible")


def check_memory(machine: Machine, servers: int) -> Finding:
    """Main memory, for `servers` SGLang servers. Weights come on top; `psserve launch` plans with those."""
    found = f"{amount(machine.available_bytes)} of {amount(machine.total_bytes)} free"
    need = servers * CPU_SERVER_BYTES
    if machine.available_bytes >= need:
        return Finding("memory", "ok", found)
    advice = f"{servers} servers take about {amount(need)}: stop other programs, or serve fewer --modules"
    return Finding("memory", "warn", found, advice)


def check_shared_memory(free_bytes: int | None) -> Finding:
    if free_bytes is None:
        return Finding("/dev/shm", "warn", "missing", "mount it: SGLang's processes share tensors there")
    if free_bytes < ENOUGH_SHM:
        return Finding("/dev/shm", "warn", f"{amount(free_bytes)} free", "give it 1 GiB (docker run --shm-size 1g)")
    return Finding("/dev/shm", "ok", f"{amount(free_bytes)} free")


def check_transfer(importable: Callable[[str], bool]) -> Finding:
    backends = {
        "nixl": importable("nixl") and (importable("nixl_cu13") or importable("nixl_cu12")),
        "mooncake": importable("mooncake"),
    }
    there = [name for name, found in backends.items() if found]
    if "nixl" in there:
        return Finding("transfer", "ok", ", ".join(there))
    if there:
        return Finding(
            "transfer", "warn", "mooncake only", "launch with --transfer mooncake, or run make setup for nixl"
        )
    return Finding("transfer", "fail", "neither nixl nor mooncake is installed", "run make setup")


def check_port(port: int, *, free: bool) -> Finding:
    if free:
        return Finding("port", "ok", f"{port} is free")
    advice = "see psserve status; psserve launch --port 0 takes a free one"
    return Finding("port", "warn", f"{port} is taken", advice)


def check_open_files(soft_limit: int) -> Finding:
    unlimited = soft_limit == resource.RLIM_INFINITY
    found = "unlimited" if unlimited else str(soft_limit)
    if unlimited or soft_limit >= ENOUGH_FILES:
        return Finding("open files", "ok", found)
    return Finding("open files", "warn", found, f"many requests at once need more: ulimit -n {16 * ENOUGH_FILES}")


def _servers(zoo: Zoo | None) -> int:
    return SMALLEST_FLEET if zoo is None else 1 + max(1, len(zoo.modules()))


def _free_shm() -> int | None:
    return shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else None
