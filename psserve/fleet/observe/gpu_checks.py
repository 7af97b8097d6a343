"""What `psserve doctor` checks where there are NVIDIA GPUs: driver, cards, and the compilers for SGLang's kernels.

SGLang compiles small kernels when a server starts, and flashinfer its sampling at the first use; neither goes without.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections import Counter
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from psserve.engine.cuda.toolkit import (
    MAJOR,
    compiler_env,
    compiler_release,
    header_release,
    missing_parts,
    users_toolkit,
)
from psserve.fleet.observe.diagnosis import Diagnosis
from psserve.fleet.plan.devices import Machine, least_driver, why_no_cuda
from psserve.fleet.plan.nvidia import Torch
from psserve.fleet.plan.spec import FleetPlan

_CUDA_FOLDER = Path("/usr/local/cuda")
_DATACENTER_BLACKWELL = 10
"""Major version of their architecture: sm_100 and sm_103."""


def check_gpus(machine: Machine, environ: Mapping[str, str] = os.environ) -> list[Diagnosis]:
    """Every check of the GPUs and of what they need; none where no GPU is visible."""
    if not machine.gpus:
        return []
    include = Path(sysconfig.get_path("include"))
    return [
        *check_cuda(machine),
        *check_compute_modes(machine, mps_runs(environ)),
        check_compiler(environ, shutil.which),
        check_python_headers(include),
        check_nvcc(find_nvcc({**environ, **compiler_env(environ)}), machine.torch),
        *check_cubins(machine, lambda name: find_spec(name) is not None),
    ]


def check_cuda(machine: Machine) -> list[Diagnosis]:
    """Whether servers could start at all: what `psserve launch` refuses."""
    wrong = [Diagnosis("CUDA", "fail", found, advice) for found, advice in why_no_cuda(machine)]
    if wrong:
        return wrong
    architectures = sorted({f"sm_{g.capability[0]}{g.capability[1]}" for g in machine.gpus if g.capability})
    known = ", ".join(architectures) or "architecture unknown"
    driver = machine.driver or "unknown"
    return [Diagnosis("CUDA", "ok", f"driver {driver} (at least {least_driver(machine.torch)}), {known}")]


def check_compute_modes(machine: Machine, mps: bool) -> list[Diagnosis]:
    """A GPU that one process alone may use cannot be shared, except through MPS."""
    return [
        Diagnosis(
            "compute mode",
            "warn",
            f"GPU {gpu.index} ({gpu.name}) is in the mode {gpu.compute_mode}: one process alone may use it",
            f"servers cannot share it: run nvidia-smi -i {gpu.index} -c DEFAULT, or start MPS",
        )
        for gpu in machine.gpus
        if gpu.compute_mode.startswith("Exclusive") and not mps
    ]


def check_compiler(environ: Mapping[str, str], which: Callable[[str], str | None]) -> Diagnosis:
    """The C++ compiler that kernels are built with: $CXX, else c++."""
    wanted = environ.get("CXX") or "c++"
    found = which(wanted)
    if found:
        return Diagnosis("c++", "ok", found)
    return Diagnosis("c++", "fail", f"no {wanted} is on PATH", "install a C++ compiler: apt-get install g++")


def check_python_headers(include: Path) -> Diagnosis:
    """Python.h, which kernels with a Python interface include."""
    if (include / "Python.h").is_file():
        return Diagnosis("Python.h", "ok", str(include))
    advice = "install Python's headers: apt-get install python3-dev, of the version that .venv uses"
    return Diagnosis("Python.h", "fail", f"{include} has none", advice)


def find_nvcc(environ: Mapping[str, str]) -> Path | None:
    """The CUDA compiler, where SGLang and flashinfer look for it: $CUDA_HOME, $CUDA_PATH, PATH, /usr/local/cuda."""
    nvcc = (users_toolkit(environ) or _CUDA_FOLDER) / "bin" / "nvcc"
    return nvcc if nvcc.is_file() else None


def check_nvcc(nvcc: Path | None, torch: Torch | None) -> Diagnosis:
    """Whether there is a CUDA toolkit to compile kernels with: complete, of one release, and that torch's."""
    wanted = f"CUDA {torch.cuda}" if torch and torch.cuda else f"CUDA {MAJOR}"
    advice = f"run make setup DEVICE=gpu, or install NVIDIA's toolkit for {wanted} and set CUDA_HOME to its folder"
    if nvcc is None:
        return Diagnosis("nvcc", "fail", "not in .venv, $CUDA_HOME/bin, on PATH or in /usr/local/cuda/bin", advice)
    toolkit = nvcc.parent.parent
    release = compiler_release(toolkit)
    if release is None:
        return Diagnosis("nvcc", "fail", f"{nvcc} does not tell its release", advice)
    found = f"{nvcc}, release {release[0]}.{release[1]}"
    if torch and torch.cuda and str(release[0]) != torch.cuda.partition(".")[0]:
        return Diagnosis("nvcc", "fail", f"{found}; torch is built for CUDA {torch.cuda}", advice)
    missing = missing_parts(toolkit)
    if missing:
        return Diagnosis("nvcc", "fail", f"{found}; {toolkit} lacks {', '.join(missing)}", advice)
    headers = header_release(toolkit)
    if headers != release:  # flashinfer's headers stop the compiler
        known = f"those of {headers[0]}.{headers[1]}" if headers else "of no release"
        return Diagnosis("nvcc", "fail", f"{found}; the headers beside it are {known}", advice)
    return Diagnosis("nvcc", "ok", found)


def check_cubins(machine: Machine, importable: Callable[[str], bool]) -> list[Diagnosis]:
    """Attention on datacenter Blackwell is compiled by NVIDIA alone: flashinfer fetches it, or a package holds it."""
    cards = [gpu.name for gpu in machine.gpus if gpu.capability and gpu.capability[0] == _DATACENTER_BLACKWELL]
    if not cards or importable("flashinfer_cubin"):
        return []
    found = f"{cards[0]}: flashinfer fetches its kernels from NVIDIA at the first use"
    return [Diagnosis("cubins", "warn", found, "without a network, install flashinfer-cubin of flashinfer's version")]


# --- sharing a GPU


def mps_runs(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether NVIDIA's Multi-Process Service is there for this user's programs."""
    return (Path(environ.get("CUDA_MPS_PIPE_DIRECTORY") or "/tmp/nvidia-mps") / "control").exists()


def check_sharing(plan: FleetPlan, mps: bool) -> list[Diagnosis]:
    """Servers that share a GPU take turns on it unless MPS lets them compute at the same time."""
    per_gpu = Counter((server.host_name, gpu) for server in plan.servers for gpu in server.gpus)
    most = max(per_gpu.values(), default=0)
    if most < 2:
        return []
    found = f"up to {most} servers share a GPU"
    if mps:
        return [Diagnosis("MPS", "ok", f"{found}, through MPS")]
    advice = "nvidia-cuda-mps-control -d before the launch lets them compute at the same time (docs/gpu.md)"
    return [Diagnosis("MPS", "warn", f"{found} and take turns on it", advice)]
