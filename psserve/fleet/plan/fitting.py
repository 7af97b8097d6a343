"""Sharing out memory: every server's KV pool, or a refusal that shows the sum.

A server of tensor parallel size t puts 1/t of its weights and of its KV cache on each of its GPUs. Servers with
`kv_tokens` or `memory_fraction` get what they ask for; what is then left of a GPU is shared out evenly among the KV
pools of the other servers on it. Of a GPU a tenth stays unplanned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psserve.errors import PlanError
from psserve.fleet.plan.devices import Machine
from psserve.fleet.plan.memory import GPU_SERVER_BYTES, SMALLEST_POOL, Budget, ServerMemory, amount, usable_bytes
from psserve.fleet.plan.nvidia import Gpu
from psserve.fleet.plan.planned import PlannedServer

CPU_KV_TOKENS = 16_384

Placed = Sequence[tuple[PlannedServer, tuple[int, ...]]]
"""Servers, each with the indices of its GPUs."""


def fit_cpu(machine: Machine, budget: Budget, servers: Sequence[PlannedServer], taken: int = 0) -> list[ServerMemory]:
    """Give each server its part of main memory, of which running servers hold `taken` bytes already.

    Raises:
        PlanError: weights and pools alone are more than the machine's memory.
    """
    for server in servers:
        if server.options.memory_fraction is not None:
            raise PlanError(
                f"{server.table}.memory_fraction is a part of a GPU's memory: on CPU give kv_tokens instead"
            )
    found = [budget.memory(server.options.kv_tokens or CPU_KV_TOKENS, gpus=0) for server in servers]
    need = taken + sum(memory.total_bytes for memory in found)
    if need > machine.total_bytes:
        parts = [
            f"{server.name} {amount(memory.weight_bytes)} weights"
            f" + {amount(memory.kv_bytes)} KV ({memory.kv_tokens} tokens)"
            for server, memory in zip(servers, found, strict=True)
        ]
        raise PlanError(
            f"this machine has {amount(machine.total_bytes)} of memory, and the servers need {amount(need)}:"
            f" {_parts(taken, parts)}; serve fewer --modules or lower --kv-tokens"
        )
    return found


def fit_gpus(gpus: Sequence[Gpu], budget: Budget, placed: Placed, taken: Mapping[int, int]) -> list[ServerMemory]:
    """Give each server its part of the GPUs it was placed on. `taken`: bytes that running servers hold, by GPU.

    Raises:
        PlanError: a GPU would be used over its memory.
    """
    asked = [budget.asked(server, tuple(gpus[i] for i in on)) for server, on in placed]
    shares: dict[int, int] = {}
    for gpu in (gpus[i] for i in sorted({i for _, on in placed for i in on})):
        here = [(server, tokens) for (server, on), tokens in zip(placed, asked, strict=True) if gpu.index in on]
        shares[gpu.index] = _share(gpu, budget, here, taken.get(gpu.index, 0))
    return [
        budget.memory(tokens or budget.tokens(server, min(shares[i] for i in on)), len(on))
        for (server, on), tokens in zip(placed, asked, strict=True)
    ]


def _share(gpu: Gpu, budget: Budget, here: Sequence[tuple[PlannedServer, int | None]], taken: int) -> int:
    """Bytes of this GPU for the KV cache of each of its servers that asked for no certain size."""
    fixed = taken + sum(budget.fixed(server) + budget.kv(server, tokens or 0) for server, tokens in here)
    smallest = [budget.kv(server, SMALLEST_POOL) for server, tokens in here if tokens is None]
    if fixed + sum(smallest) > usable_bytes(gpu):
        raise PlanError(_overfull(gpu, budget, here, taken, fixed + sum(smallest)))
    return (usable_bytes(gpu) - fixed) // max(1, len(smallest))


def _overfull(gpu: Gpu, budget: Budget, here: Sequence[tuple[PlannedServer, int | None]], taken: int, need: int) -> str:
    parts = [
        f"{server.name} {amount(budget.fixed(server) - GPU_SERVER_BYTES)} weights"
        f" + {amount(budget.kv(server, tokens or SMALLEST_POOL))} KV"
        f" ({tokens or f'at least {SMALLEST_POOL}'} tokens) + {amount(GPU_SERVER_BYTES)} CUDA"
        for server, tokens in here
    ]
    return (
        f"GPU {gpu.index} ({gpu.name}) has {amount(usable_bytes(gpu))} to plan with ({amount(gpu.free_bytes)} free,"
        f" less a tenth of its {amount(gpu.total_bytes)}), and its servers need {amount(need)}: {_parts(taken, parts)};"
        f" serve fewer --modules, lower --kv-tokens, or use more GPUs"
    )


def _parts(taken: int, parts: Sequence[str]) -> str:
    return "; ".join([*([f"running servers {amount(taken)}"] if taken else []), *parts])
