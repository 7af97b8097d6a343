"""Can this machine serve? Every check gives one line: what was found and, if that is not good, what to do.

Nothing heavy is imported: versions come from package metadata, transfer backends are looked up and not loaded.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from psserve.engine.versions import SUPPORTED
from psserve.errors import ZooError, ZooNotFound
from psserve.fleet.devices import Machine, detect
from psserve.fleet.memory import GIB
from psserve.fleet.ports import is_free
from psserve.zoo import Zoo, find_zoo

Level = Literal["ok", "warn", "fail"]

CPU_SERVER_BYTES = 2 * GIB
"""What one SGLang server on CPU takes beside weights and KV: its three processes, measured."""
SMALLEST_FLEET = 2
"""Servers: one for prefill, one for decode."""
ENOUGH_FILES = 4096
"""Open files: a streamed request holds two connections in the router and one each in two servers."""
ENOUGH_SHM = GIB // 4


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    level: Level
    found: str
    advice: str = ""
    """What to do; empty when all is well, or when `found` is an error message that says it."""


def examine(zoo: Path | None, port: int) -> list[Finding]:
    """All checks, for the zoo that `find_zoo(zoo)` finds and a router on `port`."""
    machine = detect()
    opened, zoo_finding = check_zoo(zoo)
    servers = SMALLEST_FLEET if opened is None else 1 + max(1, len(opened.modules()))
    soft_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return [
        check_python(sys.version_info[:3]),
        check_requirements(requires("psserve") or (), installed),
        check_sglang(installed("sglang")),
        check_torch(installed("torch"), machine),
        check_device(machine),
        check_memory(machine, servers),
        check_shared_memory(_free_shm()),
        check_transfer(lambda name: find_spec(name) is not None),
        check_port(port, free=is_free(port)),
        check_open_files(soft_files),
        zoo_finding,
    ]


def installed(package: str) -> str | None:
    """A package's version, or None when it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


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
        listing = ", ".join(f"{g.name} ({_gib(g.free_bytes)} of {_gib(g.total_bytes)} free)" for g in machine.gpus)
        return Finding("device", "ok", f"{len(machine.gpus)} NVIDIA GPU: {listing}")
    return Finding("device", "ok", f"CPU, {machine.cores} cores; no NVIDIA GPU is visible")


def check_memory(machine: Machine, servers: int) -> Finding:
    """Main memory, for `servers` SGLang servers. Weights come on top; `psserve launch` plans with those."""
    found = f"{_gib(machine.available_bytes)} of {_gib(machine.total_bytes)} free"
    need = servers * CPU_SERVER_BYTES
    if machine.available_bytes >= need:
        return Finding("memory", "ok", found)
    advice = f"{servers} servers take about {_gib(need)}: stop other programs, or serve fewer --modules"
    return Finding("memory", "warn", found, advice)


def check_shared_memory(free_bytes: int | None) -> Finding:
    if free_bytes is None:
        return Finding("/dev/shm", "warn", "missing", "mount it: SGLang's processes share tensors there")
    if free_bytes < ENOUGH_SHM:
        return Finding("/dev/shm", "warn", f"{_gib(free_bytes)} free", "give it 1 GiB (docker run --shm-size 1g)")
    return Finding("/dev/shm", "ok", f"{_gib(free_bytes)} free")


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


def check_zoo(explicit: Path | None) -> tuple[Zoo | None, Finding]:
    """The zoo, if one is found and readable. A missing one is no failure unless it was asked for by name."""
    try:
        zoo = Zoo.open(find_zoo(explicit))
        names = [module.name for module in zoo.modules()]
    except ZooNotFound as error:
        return None, Finding("zoo", "warn" if explicit is None else "fail", str(error))
    except (ZooError, OSError) as error:
        return None, Finding("zoo", "fail", str(error))
    if not names:
        return zoo, Finding("zoo", "warn", f"{zoo.path} has no modules", "psserve add-model NAME --path DIR adds one")
    return zoo, Finding("zoo", "ok", f"{zoo.path}: base {zoo.base.name}, modules {', '.join(names)}")


def _free_shm() -> int | None:
    return shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else None


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
