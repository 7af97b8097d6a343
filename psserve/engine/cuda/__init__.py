"""Compilers and kernels for NVIDIA GPUs: SGLang and flashinfer build small kernels on the machine that serves."""
