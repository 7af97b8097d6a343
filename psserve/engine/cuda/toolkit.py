"""The CUDA toolkit that SGLang and flashinfer compile kernels with when a server starts on a GPU.

A set-up for GPUs installs compiler, headers and libraries as wheels (requirements/sglang.in), which lie in folders of
their own and lack the names that linkers look for. `python -m psserve.engine.cuda.toolkit` assembles them to one
toolkit, as NVIDIA's installer would, in `cuda` beside the environment's `bin`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from psserve.errors import EngineError

OWN = Path(sys.prefix) / "cuda"
"""Where a set-up for GPUs assembles a toolkit."""
MAJOR = 13
"""The CUDA release that the supported builds of torch are made for."""

_WHEELS = Path("nvidia") / "cu13"
"""Where NVIDIA's wheels put their files, inside site-packages."""
_NEEDED = (
    *("bin/nvcc", "nvvm/bin/cicc", "include/cuda_runtime.h", "include/curand.h", "include/cccl/cub/cub.cuh"),
    *("lib64/libcudart.so", "lib64/stubs/libcuda.so"),
)
"""What kernels include, are compiled with and linked to."""


def missing_parts(home: Path) -> list[str]:
    """What a toolkit in `home` lacks of that which SGLang's and flashinfer's kernels need, as paths inside it."""
    return [part for part in _NEEDED if not (home / part).exists()]


def compiler_release(home: Path) -> tuple[int, int] | None:
    """The CUDA release of the toolkit's nvcc, such as (13, 0); None where it does not say."""
    try:
        command = (home / "bin" / "nvcc", "--version")
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"release (\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else None


def header_release(home: Path) -> tuple[int, int] | None:
    """The CUDA release of the toolkit's headers; None where there are none."""
    try:
        header = (home / "include" / "cuda.h").read_text(errors="replace")
    except OSError:
        return None
    found = re.search(r"^#define CUDA_VERSION (\d+)$", header, re.MULTILINE)
    return (int(found[1]) // 1000, int(found[1]) % 1000 // 10) if found else None


def fits(home: Path) -> bool:
    """Whether a toolkit is complete, of torch's major release, and its compiler of the same release as its headers."""
    if missing_parts(home):
        return False
    release = compiler_release(home)
    return release is not None and release[0] == MAJOR and release == header_release(home)


def users_toolkit(environ: Mapping[str, str]) -> Path | None:
    """The folder that CUDA_HOME, CUDA_PATH or the nvcc on PATH names, whatever is in it."""
    if home := environ.get("CUDA_HOME") or environ.get("CUDA_PATH"):
        return Path(home)
    nvcc = shutil.which("nvcc", path=environ.get("PATH", ""))
    return Path(nvcc).parent.parent if nvcc else None


def choose_toolkit(environ: Mapping[str, str], own: Path = OWN) -> Path | None:
    """The toolkit for servers: the user's (CUDA_HOME, CUDA_PATH, nvcc on PATH) where it fits, else that of the set-up.

    None where there is neither: SGLang then looks for one by itself.
    """
    candidate = users_toolkit(environ)
    if candidate is not None and fits(candidate):
        return candidate
    return own if not missing_parts(own) else None


def compiler_env(environ: Mapping[str, str], own: Path = OWN) -> dict[str, str]:
    """The environment variables by which SGLang, flashinfer and the linker find the chosen toolkit."""
    home = choose_toolkit(environ, own)
    if home is None:
        return {}
    # SGLang links kernels of several GPUs to the driver, and leaves it to the linker to find one.
    libraries = filter(None, [environ.get("LIBRARY_PATH"), str(home / "lib64" / "stubs")])
    return {"CUDA_HOME": str(home), "LIBRARY_PATH": os.pathsep.join(libraries)}


def assemble(site_packages: Path, home: Path, compiler: str = "cc") -> None:
    """Make `home` a CUDA toolkit of links to the wheels in `site_packages`, in place of what was there.

    Wheels have no driver to link to: a C compiler makes a library that has its functions' names and nothing in them.
    Raises EngineError where wheels or the compiler are missing.
    """
    wheels = (site_packages / _WHEELS).resolve()
    if home.exists():
        shutil.rmtree(home)
    stubs = home / "lib64" / "stubs"
    stubs.mkdir(parents=True)
    for folder in ("bin", "include", "nvvm"):
        (home / folder).symlink_to(wheels / folder)
    for library in sorted((wheels / "lib").glob("lib*")):
        (home / "lib64" / library.name).symlink_to(library)
        # libcudart.so.13 is what programs load, libcudart.so what linkers look for.
        bare = home / "lib64" / f"{library.name.partition('.so')[0]}.so"
        if ".so." in library.name and not bare.is_symlink():
            bare.symlink_to(library.name)
    header = wheels / "include" / "cuda.h"
    if header.is_file():
        _make_driver_stub(header, stubs, compiler)
    missing = missing_parts(home)
    if missing:
        raise EngineError(f"the CUDA wheels in {wheels} lack {', '.join(missing)}: run make setup DEVICE=gpu again")


def _make_driver_stub(header: Path, folder: Path, compiler: str) -> None:
    """Write libcuda.so, by whose inner name the driver's own library is loaded when a kernel runs."""
    # Some are mentioned only, in comments or as macros; a name too many does no harm.
    names = sorted(set(re.findall(r"\bcu[A-Z]\w+", header.read_text(errors="replace"))))
    source = "".join(f"void {name}(void) {{}}\n" for name in names)
    library = str(folder / "libcuda.so")
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-Wl,-soname,libcuda.so.1", "-o", library]
    try:
        subprocess.run(command, input=source, text=True, capture_output=True, check=True, timeout=60)
    except FileNotFoundError:
        raise EngineError(f"no C compiler called {compiler} is on PATH: apt-get install g++") from None
    except subprocess.CalledProcessError as error:
        raise EngineError(f"{compiler} makes no library: {error.stderr.strip()}") from None


if __name__ == "__main__":
    try:
        assemble(Path(sysconfig.get_path("purelib")), OWN)
    except EngineError as problem:
        sys.exit(f"error: {problem}")
