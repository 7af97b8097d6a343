"""One KV pool for all servers of a device (`--transfer shared`): where it works, and how memory is shared out then.

The base's KV is in the prefill servers' pools alone. A decode server's pool holds what its module makes, and of each
prompt the tokens of its last, unfinished page. `transfer.py` says where it is the default.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from fractions import Fraction

from psserve.contracts.one_pool import LARGEST_POOL, MOST_ELEMENTS, MOST_SOURCES, places, round_up
from psserve.engine.versions import installed_sglang, require_one_pool
from psserve.errors import PlanError
from psserve.fleet.plan.memory import SMALLEST_POOL, KvShape, ServerMemory
from psserve.fleet.plan.planned import PlannedServer
from psserve.fleet.plan.sglang_args import EngineSettings
from psserve.zoo import Base

PREFILL_PART = Fraction(9, 10)
"""Of the KV cache of a device: answers are short beside the contexts that they are made from."""


def check_one_pool(servers: Sequence[PlannedServer], platform: str = sys.platform, *, hosts: int = 1) -> None:
    """Check that decode servers can read the prefill servers' KV in place. `hosts`: of the fleet.

    Raises:
        PlanError: this system, or what is asked of a server rules it out.
        UnsupportedSglang: the installed release does.
    """
    if reason := why_no_one_pool(servers, platform, hosts=hosts):
        raise _refused(reason)
    if (release := installed_sglang()) is not None:
        require_one_pool(release)


def why_no_one_pool(servers: Sequence[PlannedServer], platform: str = sys.platform, *, hosts: int = 1) -> str | None:
    """Why decode servers cannot read the prefill servers' KV in place, whatever the release; None if they can."""
    if platform != "linux":
        return "it needs Linux"
    if hosts > 1:
        return f"decode servers read memory of their own host, and the fleet has {hosts} hosts"
    prefill = sum(server.role == "prefill" for server in servers)
    if prefill > MOST_SOURCES:
        return f"there are {prefill} prefill servers, and it works with {MOST_SOURCES} at most"
    return None


def check_pools(
    base: Base,
    settings: EngineSettings,
    servers: Sequence[PlannedServer],
    memory: Sequence[ServerMemory],
    gpus: Iterable[tuple[int, ...]],
) -> None:
    """Check that decode servers reach each prefill server's pool and have room for its addresses. `gpus`: of each.

    Raises:
        PlanError: a pool is too large, or not all servers are on the same GPUs.
    """
    if settings.device == "cpu":
        if reason := why_too_large(servers, memory):
            raise _refused(reason)
        return
    check_same_gpus(gpus)
    _check_places(base, settings, servers, memory)


def why_too_large(servers: Iterable[PlannedServer], memory: Iterable[ServerMemory]) -> str | None:
    """Which pool has too many rows to have its place in main memory's addresses; None if all have theirs."""
    for server, its in zip(servers, memory, strict=True):
        if server.role == "prefill" and its.kv_tokens >= LARGEST_POOL:
            return f"{server.name} has {its.kv_tokens} KV tokens, and it works with {LARGEST_POOL - 1} at most"
    return None


def check_same_gpus(gpus: Iterable[tuple[int, ...]]) -> None:
    """Check that all servers are on the same GPUs, or on none. Raises PlanError."""
    if len(on := sorted(set(gpus))) > 1:
        listed = ", ".join("+".join(map(str, group)) for group in on)
        raise _refused(
            f"decode servers read memory of their own GPU, and the fleet's servers are on GPUs {listed}: name one with"
            " gpus in [prefill] and [decode] of fleet.toml, or with CUDA_VISIBLE_DEVICES"
        )


def _check_places(
    base: Base, settings: EngineSettings, servers: Sequence[PlannedServer], memory: Sequence[ServerMemory]
) -> None:
    """On GPUs kernels count a buffer's elements, and one place more is for a server that is started again."""
    shape = KvShape.of(base, settings)
    needed = 1 + sum(server.role == "prefill" for server in servers)
    lent = lent_rows(settings, servers, memory) or 0
    for server, its in zip(servers, memory, strict=True):
        tp, step = server.options.tp, shape.row_step(settings.page_size, server.options.tp)
        most = MOST_ELEMENTS // (shape.kv_heads // tp * shape.head_dim)
        own = round_up(its.kv_tokens + settings.page_size, step)
        if server.role == "decode" and places(own, round_up(lent, step), most) < needed:
            raise _refused(
                f"{server.name} would need {own} + {needed} x {lent} rows for its own KV and for what prefill servers"
                f" lend, one that is started again included, and attention counts {most} at most: lower"
                " prefill.kv_tokens"
            )


def lent_rows(settings: EngineSettings, servers: Sequence[PlannedServer], memory: Sequence[ServerMemory]) -> int | None:
    """Rows of the largest prefill server's pool, for which decode servers must have room on GPUs; None elsewhere."""
    if not settings.one_pool or settings.device == "cpu":
        return None
    largest = max(its.kv_tokens for server, its in zip(servers, memory, strict=True) if server.role == "prefill")
    return largest + settings.page_size


def smallest_pool(settings: EngineSettings, servers: Sequence[PlannedServer], memory: Sequence[ServerMemory]) -> int:
    """Tokens of the smallest pool that has to hold a whole context."""
    return min(
        its.kv_tokens
        for server, its in zip(servers, memory, strict=True)
        if server.role == "prefill" or not settings.one_pool
    )


def pools_of_one(left: int, prefill: int, decode: int, longest: int, least_own: int = SMALLEST_POOL) -> tuple[int, int]:
    """The size of a prefill and of a decode pool, in tokens or bytes, where so many servers of each share out `left`.

    `longest`: a pool that holds the longest request, which a prefill pool does as long as decode pools have a rest.
    `least_own`: what a decode pool holds at least.
    """
    least = min(least_own, left // (prefill + decode))
    of_prefill = min(max(int(left * PREFILL_PART), longest * prefill), left - least * decode)
    return of_prefill // prefill, (left - of_prefill) // decode


def _refused(reason: str) -> PlanError:
    return PlanError(f"--transfer shared: {reason}; launch with --transfer nixl")
