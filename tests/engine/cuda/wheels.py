"""NVIDIA's wheels as they lie in site-packages, as far as names go."""

from __future__ import annotations

from pathlib import Path

_HEADER = "#define CUDA_VERSION 13000\nCUresult CUDAAPI cuInit(unsigned int Flags);\n#define cuMemAlloc cuMemAlloc_v2\n"


def nvcc(release: str) -> str:
    """A program that says of itself what the CUDA compiler of that release says."""
    return f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.88'\n"


def header(release: str) -> str:
    """What cuda.h of that release says of itself, and two of the driver's functions."""
    major, minor = release.split(".")
    return _HEADER.replace("13000", str(int(major) * 1000 + int(minor) * 10))


def lay_wheels(site_packages: Path, compiler: str = "13.0", headers: str = "13.0") -> Path:
    """Write the files of one toolkit, of the named releases, into `site_packages`, and return it."""
    files = {
        "bin/nvcc": nvcc(compiler),
        "nvvm/bin/cicc": "",
        "include/cuda.h": header(headers),
        "include/cuda_runtime.h": "",
        "include/curand.h": "",
        "include/cccl/cub/cub.cuh": "",
        "lib/libcudart.so.13": "the library",
        "lib/libcudart_static.a": "",
    }
    for name, text in files.items():
        path = site_packages / "nvidia" / "cu13" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (site_packages / "nvidia" / "cu13" / "bin" / "nvcc").chmod(0o755)
    return site_packages
