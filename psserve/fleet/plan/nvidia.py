"""The NVIDIA GPUs of this machine, as `nvidia-smi` and the installed torch tell of them; torch is not imported."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_BASIC = ("index", "uuid", "name", "memory.total", "memory.free", "driver_version", "compute_mode")
_NEWER = ("compute_cap", "mig.mode.current")
"""What nvidia-smi of an old driver has not heard of."""
_MIB = 1024 * 1024
_NO_GPU = "No devices were found"
_HIDDEN = ("", "-1", "NoDevFiles")
"""Values of CUDA_VISIBLE_DEVICES by which people and Slurm hide every GPU."""


@dataclass(frozen=True)
class Gpu:
    """One GPU as servers see it: `index` counts visible GPUs only (CUDA_VISIBLE_DEVICES)."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int] | None = None
    """Its architecture: (9, 0) is sm_90. None: unknown."""
    compute_mode: str = "Default"
    """Which processes may use it: Default, Exclusive_Process or Prohibited."""


@dataclass(frozen=True)
class Listing:
    """What nvidia-smi lists, of that what CUDA_VISIBLE_DEVICES lets through."""

    gpus: tuple[Gpu, ...] = ()
    unusable: tuple[str, ...] = ()
    """GPUs that are there and that no server can be planned on: which, and why."""
    driver: str | None = None
    """The driver's version; None: unknown."""


@dataclass(frozen=True)
class Torch:
    """The installed build of torch."""

    version: str
    cuda: str | None
    """The CUDA release that it is built for; None: it computes on CPU alone."""


def list_gpus(visible: str | None, nodes: Path = Path("/dev")) -> Listing:
    """What nvidia-smi says now. `visible`: CUDA_VISIBLE_DEVICES; None: all. `nodes`: where GPUs are devices."""
    if visible is not None and visible.strip() in _HIDDEN:
        return Listing()
    tool = shutil.which("nvidia-smi")
    if tool is None:
        there = sorted(str(node) for node in nodes.glob("nvidia[0-9]*"))
        unasked = f"{', '.join(there)}: no nvidia-smi is on PATH to ask for the memory of these GPUs"
        return Listing(unusable=(unasked,) if there else ())
    said = ""
    for fields in (_BASIC + _NEWER, _BASIC):
        command = [tool, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Listing(unusable=(f"{tool} gives no answer: {error}",))
        if answer.returncode == 0:
            return parse_gpus(answer.stdout, visible)
        said = (answer.stdout + answer.stderr).strip()
    if not said or _NO_GPU in said:
        return Listing()
    return Listing(unusable=(f"{tool} fails: {said.splitlines()[0]}",))


def parse_gpus(listing: str, visible: str | None) -> Listing:
    """GPUs from nvidia-smi's CSV, in CUDA's order: `visible` is CUDA_VISIBLE_DEVICES (None: all)."""
    rows = [[cell.strip() for cell in line.split(",")] for line in listing.splitlines()]
    rows = [row for row in rows if len(row) >= len(_BASIC)]
    unusable: list[str] = []
    if visible is not None:
        rows, unusable = _visible(rows, visible)
    unusable += filter(None, map(_why_unusable, rows))
    if unusable:  # their numbers would not be those that CUDA counts by
        return Listing((), tuple(unusable), rows[0][5] if rows else None)
    gpus = tuple(
        Gpu(i, row[2], int(row[3]) * _MIB, int(row[4]) * _MIB, _capability(row), row[6]) for i, row in enumerate(rows)
    )
    return Listing(gpus, (), rows[0][5] if rows else None)


def query(what: str, form: str, timeout_s: float) -> str:
    """What nvidia-smi answers to `what`, in the format `form`; nothing where it is missing or fails."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    try:
        return subprocess.run([tool, what, form], capture_output=True, text=True, timeout=timeout_s, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def torch_build() -> Torch | None:
    """The installed torch, read from its own record of how it was built; None: not installed."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    record = Path(spec.origin).with_name("version.py").read_text()
    return Torch(_assigned(record, "__version__") or "unknown", _assigned(record, "cuda"))


def _assigned(source: str, name: str) -> str | None:
    found = re.search(rf"^{name}\b[^=\n]*=\s*['\"]([^'\"]+)['\"]", source, re.MULTILINE)
    return found[1] if found else None


def _visible(rows: Sequence[list[str]], visible: str) -> tuple[list[list[str]], list[str]]:
    """The rows that CUDA_VISIBLE_DEVICES chooses, and what is to be said of those that it cannot."""
    chosen: list[list[str]] = []
    for entry in filter(None, map(str.strip, visible.split(","))):
        if entry.startswith("MIG"):
            return chosen, [f"CUDA_VISIBLE_DEVICES names {entry}, a part of a GPU (MIG): psserve plans with whole ones"]
        match = [row for row in rows if row[0] == entry or row[1].startswith(entry)]
        if not match:  # CUDA too stops at the first entry that it does not know
            break
        chosen.append(match[0])
    unknown = rows and not chosen and visible.strip() not in _HIDDEN
    return chosen, [f"CUDA_VISIBLE_DEVICES={visible}: nvidia-smi lists no such GPU"] if unknown else []


def _why_unusable(row: Sequence[str]) -> str | None:
    called = f"GPU {row[0]} ({row[2]})"
    if len(row) > 8 and row[8] == "Enabled":
        return f"{called} is split into parts (MIG): psserve plans with whole ones (nvidia-smi -i {row[0]} -mig 0)"
    if not (row[3].isdigit() and row[4].isdigit()):
        return f"{called}: nvidia-smi does not tell its memory (total {row[3]}, free {row[4]}), so none can be planned"
    return None


def _capability(row: Sequence[str]) -> tuple[int, int] | None:
    major, dot, minor = row[7].partition(".") if len(row) > 7 else ("", "", "")
    return (int(major), int(minor)) if dot and major.isdigit() and minor.isdigit() else None
