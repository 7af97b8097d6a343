"""On what, and with which versions, something was measured."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path
from typing import Any

import psutil

import psserve
from psserve.versions import installed

_PACKAGES = ("sglang", "torch", "transformers", "sgl-kernel", "flashinfer-python", "nixl", "mooncake-transfer-engine")


def describe() -> dict[str, Any]:
    """This machine and its software, as JSON."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "psserve": psserve.__version__,
        "versions": {package: found for package in _PACKAGES if (found := installed(package))},
        "gpus": gpus(),
    }


def cpu_name() -> str:
    """The processor's name from /proc/cpuinfo, else its architecture."""
    try:
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        match = None
    return match[1] if match else platform.machine()


def gpus() -> list[str]:
    """Name, driver and memory of each NVIDIA GPU, as nvidia-smi writes them."""
    from psserve.fleet.plan.nvidia import query  # only here: a report needs no fleet

    lines = query("--query-gpu=name,driver_version,memory.total", "--format=csv,noheader", timeout_s=30).splitlines()
    return [line.strip() for line in lines if line.strip()]


def slug(name: str) -> str:
    """A name fit for a file: "NVIDIA H100 80GB HBM3" -> "h100-80gb-hbm3". "unknown" if nothing is left."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    return "-".join(word for word in words if word not in ("nvidia", "geforce")) or "unknown"
