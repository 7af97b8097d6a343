"""How many tokens of KV cache each server gets, and whether the fleet fits at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psserve.errors import PlanError
from psserve.fleet.devices import Gpu, Machine

GIB = 1024**3
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CPU_KV_TOKENS = 16_384
GPU_SHARE = 0.9
"""Part of a GPU's free memory that servers may plan with."""
GPU_SERVER_BYTES = int(2.5 * GIB)
"""CUDA context, workspaces and CUDA graphs of one server, beside weights and KV."""
SMALLEST_POOL = 1_024


@dataclass(frozen=True)
class KvShape:
    """What a token's KV cache is made of: keys and values of every layer."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: str

    @property
    def token_bytes(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim * DTYPE_BYTES[self.dtype]


def cpu_pool(machine: Machine, shape: KvShape, weights: Sequence[int], wanted: int | None) -> int:
    """Tokens a server on CPU. `weights` are the bytes of each server's weights as served.

    Raises:
        PlanError: weights and pools alone are more than the machine's memory.
    """
    tokens = wanted or CPU_KV_TOKENS
    need = sum(weights) + len(weights) * tokens * shape.token_bytes
    if need > machine.total_bytes:
        raise PlanError(
            f"{len(weights)} servers need {_gib(sum(weights))} of weights and {_gib(need - sum(weights))} of KV cache,"
            f" this machine has {_gib(machine.total_bytes)}; serve fewer --modules or lower --kv-tokens"
        )
    return tokens


def gpu_pool(gpu: Gpu, shape: KvShape, weights: Sequence[int], wanted: int | None) -> int:
    """Tokens a server on one GPU that these servers share evenly.

    Raises:
        PlanError: they do not fit.
    """
    budget = int(gpu.free_bytes * GPU_SHARE)
    fixed = sum(weights) + len(weights) * GPU_SERVER_BYTES
    fits = max(0, budget - fixed) // (len(weights) * shape.token_bytes)
    need = wanted or SMALLEST_POOL
    if fits < need:
        raise PlanError(
            f"GPU {gpu.index} ({gpu.name}): {len(weights)} servers need {_gib(fixed)} for weights and workspaces and"
            f" {_gib(len(weights) * need * shape.token_bytes)} for KV cache ({need} tokens each), {_gib(budget)} can be"
            f" used; serve fewer --modules or lower --kv-tokens"
        )
    return wanted or fits


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
