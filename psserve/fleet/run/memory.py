"""What processes use of main memory, and of GPU memory as nvidia-smi tells it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, TypeAdapter

from psserve.fleet.plan import layout
from psserve.fleet.plan.nvidia import query
from psserve.zoo.disk.storage import write_atomically

_MIB = 1024 * 1024


class MemoryUse(BaseModel):
    """What a process and its descendants use, in bytes. None: not known."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    main_bytes: int | None = None
    gpu_bytes: int | None = None


_USES = TypeAdapter(Mapping[str, MemoryUse])


def memory_use(pid: int, on_gpus: Mapping[int, int]) -> MemoryUse:
    """What a process of this machine uses; `on_gpus`: see `gpu_memory`."""
    processes = family(pid)
    return MemoryUse(main_bytes=main_memory(processes), gpu_bytes=of_family(processes, on_gpus))


def write_uses(run: Path, uses: Mapping[str, MemoryUse]) -> None:
    """Leave word of what servers on other machines use. Raises OSError."""
    write_atomically(layout.memory_path(run), _USES.dump_json(uses), 0o600, durable=False)


def read_uses(run: Path) -> Mapping[str, MemoryUse]:
    """What was written last, by server; none where there is nothing to be read."""
    with contextlib.suppress(OSError, ValueError):
        return _USES.validate_json(layout.memory_path(run).read_bytes())
    return {}


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants; none if it has gone."""
    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def main_memory(processes: Iterable[psutil.Process]) -> int | None:
    """Bytes of main memory, a page that n processes share counted to each as 1/n (PSS). None if nothing is known."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found.append(process.memory_full_info().pss)
    return sum(found) if found else None


def gpu_memory(timeout_s: float = 5.0) -> dict[int, int]:
    """Bytes of GPU memory by pid, as nvidia-smi knows them; empty where it is missing or does not know."""
    return parse_gpu_memory(query("--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits", timeout_s))


def parse_gpu_memory(listing: str) -> dict[int, int]:
    """nvidia-smi's CSV of pid and MiB; a process on several GPUs has several lines. `[N/A]` is skipped."""
    found: dict[int, int] = {}
    for line in listing.splitlines():
        pid, _, mib = (part.strip() for part in line.partition(","))
        if pid.isdigit() and mib.isdigit():
            found[int(pid)] = found.get(int(pid), 0) + int(mib) * _MIB
    return found


def of_family(processes: Iterable[psutil.Process], by_pid: Mapping[int, int]) -> int | None:
    """The sum over those processes that `by_pid` knows; None if it knows none."""
    found = [by_pid[process.pid] for process in processes if process.pid in by_pid]
    return sum(found) if found else None
