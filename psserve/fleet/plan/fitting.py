"""Sharing out memory: every server's KV pool, or a refusal that shows the sum.

A server of tensor parallel size t puts 1/t of its weights and of its KV cache on each of its GPUs. Servers with
`kv_tokens` or `memory_fraction` get what they ask for; what is then left for KV cache (`pools`) is shared out among the
others. The contexts of all modules go through the prefill pools, and stay there between two turns of a session; in a
decode pool a context must be while an answer is made from it. So the prefill servers of a device together get
three fifths, however many modules there are, as long as each pool holds the longest request (docs/fleet.md has the
figures). Of a GPU a tenth stays unplanned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from psserve.errors import NoRoom, PlanError
from psserve.fleet.plan.allowance import Role
from psserve.fleet.plan.devices import Machine
from psserve.fleet.plan.memory import SMALLEST_POOL, Budget, ServerMemory, amount, usable_bytes
from psserve.fleet.plan.nvidia import Gpu
from psserve.fleet.plan.one_pool import pools_of_one
from psserve.fleet.plan.planned import PlannedServer
from psserve.fleet.plan.settings import pool_for
from psserve.fleet.plan.sglang_args import EngineSettings

CPU_KV_TOKENS = 16_384
"""For each server, on the average: main memory is not planned to its end, as a GPU's is."""
PREFILL_PART = Fraction(3, 5)
"""Of the KV cache of a device that prefill and decode servers share."""

Placed = Sequence[tuple[PlannedServer, tuple[int, ...]]]
"""Servers, each with the indices of its GPUs."""


def pools(
    left: int, prefill: int, decode: int, longest: int, *, one_pool: bool = False, least_own: int = SMALLEST_POOL
) -> dict[Role, int]:
    """The size of one KV pool of each role, where so many servers of each share out `left`.

    `longest`: a pool that holds the longest request; no pool is smaller, unless all are of one size. In tokens or
    in bytes. `one_pool`: decode servers read prompts in the prefill servers' (psserve.fleet.plan.one_pool), and their
    own hold `least_own` at least.
    """
    if not prefill or not decode:
        return dict.fromkeys(("prefill", "decode"), left // max(1, prefill + decode))
    if one_pool:
        of_each_prefill, of_each_decode = pools_of_one(left, prefill, decode, longest, least_own)
        return {"prefill": of_each_prefill, "decode": of_each_decode}
    least = min(longest, left // (prefill + decode))
    of_prefill = min(max(int(left * PREFILL_PART), least * prefill), left - least * decode)
    return {"prefill": of_prefill // prefill, "decode": (left - of_prefill) // decode}


def fit_cpu(
    machine: Machine, budget: Budget, settings: EngineSettings, servers: Sequence[PlannedServer], taken: int = 0
) -> list[ServerMemory]:
    """Give each server its part of main memory, of which running servers hold `taken` bytes already.

    Raises:
        NoRoom: weights and pools alone are more than the machine's memory.
        PlanError: a server asks for a part of a GPU's memory.
    """
    for server in servers:
        if server.options.memory_fraction is not None:
            raise PlanError(
                f"{server.table}.memory_fraction is a part of a GPU's memory: on CPU give kv_tokens instead"
            )
    others = [server for server in servers if server.options.kv_tokens is None]
    longest = pool_for(settings.context_length, settings.page_size)
    sizes = _pools(others, settings, CPU_KV_TOKENS * len(others), longest, SMALLEST_POOL)
    found = [budget.memory(server, server.options.kv_tokens or sizes[server.role], gpus=0) for server in servers]
    need = taken + sum(memory.total_bytes + memory.adapter_bytes for memory in found)
    if need > machine.total_bytes:
        parts = [
            f"{server.name} {amount(memory.weight_bytes)} weights"
            f" + {amount(memory.kv_bytes)} KV ({memory.kv_tokens} tokens)"
            + (f" + {amount(memory.adapter_bytes)} adapters" if memory.adapter_bytes else "")
            for server, memory in zip(servers, found, strict=True)
        ]
        raise NoRoom(
            f"this machine has {amount(machine.total_bytes)} of memory, and the servers need {amount(need)}:"
            f" {_parts(taken, parts)}; serve fewer --modules or lower --kv-tokens",
            f"{amount(machine.total_bytes)} of memory, and {amount(need)} would be needed",
        )
    return found


def fit_gpus(
    gpus: Sequence[Gpu], budget: Budget, settings: EngineSettings, placed: Placed, taken: Mapping[int, int]
) -> list[ServerMemory]:
    """Give each server its part of the GPUs it was placed on. `taken`: bytes that running servers hold, by GPU.

    Raises:
        NoRoom: a GPU would be used over its memory.
    """
    asked = [budget.asked(server, tuple(gpus[i] for i in on)) for server, on in placed]
    longest = pool_for(settings.context_length, settings.page_size)
    shares: dict[tuple[int, Role], int] = {}
    for gpu in (gpus[i] for i in sorted({i for _, on in placed for i in on})):
        here = [(server, tokens) for (server, on), tokens in zip(placed, asked, strict=True) if gpu.index in on]
        for role, share in _shares(gpu, budget, settings, here, taken.get(gpu.index, 0), longest).items():
            shares[gpu.index, role] = share
    return [
        budget.memory(server, tokens or budget.tokens(server, min(shares[i, server.role] for i in on)), len(on))
        for (server, on), tokens in zip(placed, asked, strict=True)
    ]


def _shares(
    gpu: Gpu,
    budget: Budget,
    settings: EngineSettings,
    here: Sequence[tuple[PlannedServer, int | None]],
    taken: int,
    longest: int,
) -> dict[Role, int]:
    """Role -> bytes of this GPU for the KV cache of each of its servers that asked for no certain size.

    `longest`: tokens of a pool that holds the longest request.
    """
    fixed = taken + sum(budget.fixed(server) + budget.kv(server, tokens or 0) for server, tokens in here)
    others = [server for server, tokens in here if tokens is None]
    smallest = sum(budget.kv(server, SMALLEST_POOL) for server in others)
    if fixed + smallest > usable_bytes(gpu):
        raise _overfull(gpu, budget, here, taken, fixed + smallest)
    bytes_of_longest, least_own = (
        max((budget.kv(server, tokens) for server in others), default=0) for tokens in (longest, SMALLEST_POOL)
    )
    return _pools(others, settings, usable_bytes(gpu) - fixed, bytes_of_longest, least_own)


def _pools(
    servers: Sequence[PlannedServer], settings: EngineSettings, left: int, longest: int, least_own: int
) -> dict[Role, int]:
    prefill = sum(server.role == "prefill" for server in servers)
    decode = len(servers) - prefill
    return pools(left, prefill, decode, longest, one_pool=settings.one_pool, least_own=least_own)


def check_main_memory(machine: Machine, servers: Sequence[ServerMemory]) -> None:
    """Check that main memory holds the adapters that servers on GPUs keep there. Raises NoRoom."""
    need = sum(server.adapter_bytes for server in servers)
    if need > machine.total_bytes:
        raise NoRoom(
            f"this machine has {amount(machine.total_bytes)} of main memory, and the adapters that servers keep there"
            f" may take {amount(need)}: lower max_loaded in [adapters]",
            f"{amount(machine.total_bytes)} of main memory, and {amount(need)} would be needed for adapters",
        )


def _overfull(
    gpu: Gpu, budget: Budget, here: Sequence[tuple[PlannedServer, int | None]], taken: int, need: int
) -> NoRoom:
    parts = [
        f"{server.name} {amount(budget.fixed(server) - budget.overhead(server))} weights"
        f" + {amount(budget.kv(server, tokens or SMALLEST_POOL))} KV"
        f" ({tokens or f'at least {SMALLEST_POOL}'} tokens) + {amount(budget.overhead(server))} CUDA"
        for server, tokens in here
    ]
    return NoRoom(
        f"GPU {gpu.index} ({gpu.name}) has {amount(usable_bytes(gpu))} to plan with ({amount(gpu.free_bytes)} free,"
        f" less a tenth of its {amount(gpu.total_bytes)}), and its servers need {amount(need)}: {_parts(taken, parts)};"
        f" serve fewer --modules, lower --kv-tokens, or use more GPUs",
        f"GPU {gpu.index} has {amount(usable_bytes(gpu))} to plan with, and {amount(need)} would be needed",
    )


def _parts(taken: int, parts: Sequence[str]) -> str:
    return "; ".join([*([f"running servers {amount(taken)}"] if taken else []), *parts])
