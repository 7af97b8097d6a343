"""Sharing out memory: every server's KV pool, or a refusal that shows the sum.

A server of tensor parallel size t puts 1/t of its weights and of its KV cache on each of its GPUs. Servers with
`kv_tokens` or `memory_fraction` get what they ask for; what is then left of a GPU is shared out among the KV pools of
the other servers on it: evenly up to what the longest request needs, and of the rest a prefill server gets twice a
decode server's part, since the contexts of all modules go through its pool. Of a GPU a tenth stays unplanned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psserve.errors import PlanError
from psserve.fleet.plan.devices import Machine
from psserve.fleet.plan.memory import SMALLEST_POOL, Budget, ServerMemory, amount, usable_bytes
from psserve.fleet.plan.nvidia import Gpu
from psserve.fleet.plan.planned import PlannedServer
from psserve.fleet.plan.settings import pool_for
from psserve.fleet.plan.sglang_args import EngineSettings

CPU_KV_TOKENS = 16_384
PARTS = {"prefill": 2, "decode": 1}
"""Of what is left of a GPU once each pool on it holds the longest request."""

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
    found = [budget.memory(server, server.options.kv_tokens or CPU_KV_TOKENS, gpus=0) for server in servers]
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


def fit_gpus(
    gpus: Sequence[Gpu], budget: Budget, settings: EngineSettings, placed: Placed, taken: Mapping[int, int]
) -> list[ServerMemory]:
    """Give each server its part of the GPUs it was placed on. `taken`: bytes that running servers hold, by GPU.

    Raises:
        PlanError: a GPU would be used over its memory.
    """
    asked = [budget.asked(server, tuple(gpus[i] for i in on)) for server, on in placed]
    longest = pool_for(settings.context_length, settings.page_size)
    shares: dict[tuple[int, str], int] = {}
    for gpu in (gpus[i] for i in sorted({i for _, on in placed for i in on})):
        here = [(server, tokens) for (server, on), tokens in zip(placed, asked, strict=True) if gpu.index in on]
        for role, share in _shares(gpu, budget, here, taken.get(gpu.index, 0), longest).items():
            shares[gpu.index, role] = share
    return [
        budget.memory(server, tokens or budget.tokens(server, min(shares[i, server.role] for i in on)), len(on))
        for (server, on), tokens in zip(placed, asked, strict=True)
    ]


def _shares(
    gpu: Gpu, budget: Budget, here: Sequence[tuple[PlannedServer, int | None]], taken: int, longest: int
) -> dict[str, int]:
    """Role -> bytes of this GPU for the KV cache of each of its servers that asked for no certain size.

    `longest`: tokens of a pool that holds the longest request.
    """
    fixed = taken + sum(budget.fixed(server) + budget.kv(server, tokens or 0) for server, tokens in here)
    others = [server for server, tokens in here if tokens is None]
    smallest = sum(budget.kv(server, SMALLEST_POOL) for server in others)
    if fixed + smallest > usable_bytes(gpu):
        raise PlanError(_overfull(gpu, budget, here, taken, fixed + smallest))
    left = usable_bytes(gpu) - fixed
    even = left // max(1, len(others))
    floor = min([even, *(budget.kv(server, longest) for server in others)])
    part = (left - floor * len(others)) // max(1, sum(PARTS[server.role] for server in others))
    return {role: floor + part * parts for role, parts in PARTS.items()}


def _overfull(gpu: Gpu, budget: Budget, here: Sequence[tuple[PlannedServer, int | None]], taken: int, need: int) -> str:
    parts = [
        f"{server.name} {amount(budget.fixed(server) - budget.overhead(server))} weights"
        f" + {amount(budget.kv(server, tokens or SMALLEST_POOL))} KV"
        f" ({tokens or f'at least {SMALLEST_POOL}'} tokens) + {amount(budget.overhead(server))} CUDA"
        for server, tokens in here
    ]
    return (
        f"GPU {gpu.index} ({gpu.name}) has {amount(usable_bytes(gpu))} to plan with ({amount(gpu.free_bytes)} free,"
        f" less a tenth of its {amount(gpu.total_bytes)}), and its servers need {amount(need)}: {_parts(taken, parts)};"
        f" serve fewer --modules, lower --kv-tokens, or use more GPUs"
    )


def _parts(taken: int, parts: Sequence[str]) -> str:
    return "; ".join([*([f"running servers {amount(taken)}"] if taken else []), *parts])
