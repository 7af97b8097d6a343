"""NVIDIA's wheels as they lie in site-packages, as far as names go."""

from __future__ import annotations

from pathlib import Path

HEADER = "#define CUDA_VERSION 13000\nCUresult CUDAAPI cuInit(unsigned int Flags);\n#define cuMemAlloc cuMemAlloc_v2\n"


def nvcc(release: str) -> str:
    """A program that says of itself what the CUDA compiler of that release says."""
    return f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.88'\n"


def lay_wheels(site_packages: Path) -> Path:
    """Write the files of one consistent toolkit into `site_packages`, and return it."""
    files = {
        "bin/nvcc": nvcc("13.0"),
        "nvvm/bin/cicc": "",
        "include/cuda.h": HEADER,
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
