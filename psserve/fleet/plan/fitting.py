"""Sharing out memory: every server's KV pool, or a refusal that shows the sum.

A server of tensor parallel size t puts 1/t of its weights and of its KV cache on each of its GPUs. Servers with
`kv_tokens` or `memory_fraction` get what they ask for; what is then left of a GPU is shared out evenly among the KV
pools of the other servers on it. Of a GPU a tenth stays unplanned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psserve.errors import PlanError
from psserve.fleet.plan.devices import Gpu, Machine
from psserve.fleet.plan.memory import GPU_SERVER_BYTES, SMALLEST_POOL, Budget, ServerMemory, amount, usable_bytes
from psserve.fleet.plan.slots import Slot

CPU_KV_TOKENS = 16_384

Placed = Sequence[tuple[Slot, tuple[int, ...]]]
"""Servers, each with the indices of its GPUs."""


def fit_cpu(machine: Machine, budget: Budget, slots: Sequence[Slot], taken: int = 0) -> list[ServerMemory]:
    """What each server takes of main memory, of which running servers hold `taken` bytes already.

    Raises:
        PlanError: weights and pools alone are more than the machine's memory.
    """
    for slot in slots:
        if slot.options.memory_fraction is not None:
            raise PlanError(f"{slot.table}.memory_fraction is a part of a GPU's memory: on CPU give kv_tokens instead")
    found = [budget.memory(slot.options.kv_tokens or CPU_KV_TOKENS, gpus=0) for slot in slots]
    need = taken + sum(memory.total_bytes for memory in found)
    if need > machine.total_bytes:
        parts = [
            f"{slot.name} {amount(memory.weight_bytes)} weights"
            f" + {amount(memory.kv_bytes)} KV ({memory.kv_tokens} tokens)"
            for slot, memory in zip(slots, found, strict=True)
        ]
        raise PlanError(
            f"this machine has {amount(machine.total_bytes)} of memory, and the servers need {amount(need)}:"
            f" {_parts(taken, parts)}; serve fewer --modules or lower --kv-tokens"
        )
    return found


def fit_gpus(gpus: Sequence[Gpu], budget: Budget, placed: Placed, taken: Mapping[int, int]) -> list[ServerMemory]:
    """What each server takes of the GPUs it was placed on. `taken`: bytes that running servers hold, by GPU.

    Raises:
        PlanError: a GPU would be used over its memory.
    """
    asked = [budget.asked(slot, tuple(gpus[i] for i in on)) for slot, on in placed]
    shares: dict[int, int] = {}
    for gpu in (gpus[i] for i in sorted({i for _, on in placed for i in on})):
        here = [(slot, tokens) for (slot, on), tokens in zip(placed, asked, strict=True) if gpu.index in on]
        shares[gpu.index] = _share(gpu, budget, here, taken.get(gpu.index, 0))
    return [
        budget.memory(tokens or budget.tokens(slot, min(shares[i] for i in on)), len(on))
        for (slot, on), tokens in zip(placed, asked, strict=True)
    ]


def _share(gpu: Gpu, budget: Budget, here: Sequence[tuple[Slot, int | None]], taken: int) -> int:
    """Bytes of this GPU for the KV cache of each of its servers that asked for no certain size."""
    fixed = taken + sum(budget.fixed(slot) + budget.kv(slot, tokens or 0) for slot, tokens in here)
    smallest = [budget.kv(slot, SMALLEST_POOL) for slot, tokens in here if tokens is None]
    if fixed + sum(smallest) > usable_bytes(gpu):
        raise PlanError(_overfull(gpu, budget, here, taken, fixed + sum(smallest)))
    return (usable_bytes(gpu) - fixed) // max(1, len(smallest))


def _overfull(gpu: Gpu, budget: Budget, here: Sequence[tuple[Slot, int | None]], taken: int, need: int) -> str:
    parts = [
        f"{slot.name} {amount(budget.fixed(slot) - GPU_SERVER_BYTES)} weights"
        f" + {amount(budget.kv(slot, tokens or SMALLEST_POOL))} KV"
        f" ({tokens or f'at least {SMALLEST_POOL}'} tokens) + {amount(GPU_SERVER_BYTES)} CUDA"
        for slot, tokens in here
    ]
    return (
        f"GPU {gpu.index} ({gpu.name}) has {amount(usable_bytes(gpu))} to plan with ({amount(gpu.free_bytes)} free,"
        f" less a tenth of its {amount(gpu.total_bytes)}), and its servers need {amount(need)}: {_parts(taken, parts)};"
        f" serve fewer --modules, lower --kv-tokens, or use more GPUs"
    )


def _parts(taken: int, parts: Sequence[str]) -> str:
    return "; ".join([*([f"running servers {amount(taken)}"] if taken else []), *parts])
