"""Compile, without a GPU, the kernels that SGLang and flashinfer would compile when a server starts on one.

    python -m psserve.engine.cuda.kernels 9.0 --head-size 128 --kv-heads 8

compiles for one architecture and writes a line of JSON for each kernel. Both libraries keep what they compiled in the
user's cache, where servers find it. A process compiles for one architecture only: SGLang remembers the first.
`scripts/gpu_compile.py` starts one for each.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from types import ModuleType

Builder = Callable[[], object]

_FLASH_ATTENTION_3 = 9
_TRTLLM_ATTENTION = 10
"""Major versions of architectures whose attention comes compiled, with SGLang or with flashinfer's cubins."""
_NO_POSITIONS = 0
"""flashinfer's number for attention that does not rotate keys: SGLang has done so."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What of a model its kernels are made for."""

    head_size: int
    kv_heads: int
    """On one GPU: with tp=2, half of the model's."""
    dtype: str = "bfloat16"


@dataclass(frozen=True, kw_only=True)
class Built:
    """What became of one kernel."""

    kernel: str
    seconds: float
    error: str | None = None


def build_kernels(architecture: tuple[int, int], shape: Shape) -> Iterator[Built]:
    """Compile every kernel of servers of that shape, one after the other.

    FLASHINFER_CUDA_ARCH_LIST must name the architecture before this process imports flashinfer.
    """
    from sglang.kernels.jit.utils import override_jit_cuda_arch

    with override_jit_cuda_arch(*architecture):
        kernels: dict[str, Builder] = {**sglang_kernels(shape), **flashinfer_kernels(architecture, shape)}
        for name, build in kernels.items():
            yield _timed(name, build)


def sglang_kernels(shape: Shape) -> dict[str, partial[object]]:
    """What SGLang compiles for models of the Llama and Qwen families, by name."""
    import torch
    from sglang.kernels.ops.activation import activation
    from sglang.kernels.ops.attention import clamp_position, rope
    from sglang.kernels.ops.kvcache import kvcache
    from sglang.kernels.ops.layernorm import norm

    dtype = getattr(torch, shape.dtype)
    row_bytes = shape.kv_heads * shape.head_size * dtype.itemsize
    return {
        "activation": partial(activation.activation_module, dtype),
        "rope": partial(rope._jit_fused_rope_module, True, shape.head_size, dtype, dtype),
        "clamp position": partial(clamp_position._jit_clamp_position_module, torch.int64),
        "KV cache": partial(kvcache._jit_kvcache_module, row_bytes, row_bytes, **_threads(kvcache)),
        "QK norm": partial(norm._jit_qknorm_module, shape.head_size, dtype),
    }


def _threads(kvcache: ModuleType) -> dict[str, int]:
    """Leaves to SGLang how many threads copy a row, where it asks: since 0.5.21."""
    return {"num_threads": 0} if "num_threads" in inspect.signature(kvcache._jit_kvcache_module).parameters else {}


def flashinfer_kernels(architecture: tuple[int, int], shape: Shape) -> dict[str, Builder]:
    """What is compiled of flashinfer: sampling everywhere, attention where none comes compiled.

    They are compiled and not loaded: they are linked to the driver, which need not be there.
    """
    import torch
    from flashinfer.jit import gen_batch_decode_module, gen_batch_prefill_module
    from flashinfer.jit.sampling import gen_sampling_module

    kernels: dict[str, Builder] = {"sampling": lambda: gen_sampling_module().build(need_lock=True)}
    if architecture[0] in (_FLASH_ATTENTION_3, _TRTLLM_ATTENTION):
        return kernels
    dtype = getattr(torch, shape.dtype)
    sizes = (dtype, dtype, dtype, torch.int32, shape.head_size, shape.head_size, _NO_POSITIONS)
    no_window, no_cap, in_float32 = False, False, False
    prefill = ("fa2", *sizes, no_window, no_cap, in_float32)
    return {
        **kernels,
        "prefill attention": lambda: gen_batch_prefill_module(*prefill).build(need_lock=True),
        "decode attention": lambda: gen_batch_decode_module(*sizes, no_window, no_cap).build(need_lock=True),
    }


def _timed(name: str, build: Builder) -> Built:
    started = time.monotonic()
    error = None
    try:
        build()
    except Exception as failed:  # noqa: BLE001 - whatever a build raises, the others are tried and all are told
        error = f"{type(failed).__name__}: {failed}"
    return Built(kernel=name, seconds=round(time.monotonic() - started, 1), error=error)


def parse_architecture(text: str) -> tuple[int, int]:
    """An architecture as NVIDIA writes it: 9.0 is sm_90. Raises ValueError for anything else."""
    major, dot, minor = text.partition(".")
    if not (dot and major.isdigit() and minor.isdigit()):
        raise ValueError(f"{text!r} is no architecture such as 9.0")
    return int(major), int(minor)


def add_shape_options(parser: argparse.ArgumentParser) -> None:
    """Options that say a shape; without them it is that of Llama-3.1-8B, Qwen3-4B, Qwen3-8B and others on one GPU."""
    parser.add_argument("--head-size", type=int, default=128, help="size of an attention head [%(default)s]")
    parser.add_argument("--kv-heads", type=int, default=8, help="KV heads on one GPU [%(default)s]")
    parser.add_argument("--dtype", choices=("bfloat16", "float16"), default="bfloat16", help="[%(default)s]")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile the kernels of servers on GPUs for one architecture.")
    parser.add_argument("architecture", type=parse_architecture, help="such as 9.0")
    add_shape_options(parser)
    said = parser.parse_args()
    shape = Shape(head_size=said.head_size, kv_heads=said.kv_heads, dtype=said.dtype)
    for built in build_kernels(said.architecture, shape):
        json.dump(asdict(built), sys.stdout)
        print(flush=True)


if __name__ == "__main__":
    main()
