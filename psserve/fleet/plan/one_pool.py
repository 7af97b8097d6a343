"""One KV pool for all servers of a device (`--transfer shared`): where it works, and how memory is shared out then.

The base's KV is in the prefill servers' pools alone. A decode server's pool holds what its module makes, and of each
prompt the tokens of its last, unfinished page. `transfer.py` says where it is the default.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from fractions import Fraction

from psserve.contracts.one_pool import LARGEST_POOL, MOST_SOURCES
from psserve.engine.versions import installed_sglang, require_one_pool
from psserve.errors import PlanError
from psserve.fleet.plan.memory import SMALLEST_POOL, ServerMemory
from psserve.fleet.plan.planned import PlannedServer
from psserve.fleet.plan.sglang_args import EngineSettings

PREFILL_PART = Fraction(9, 10)
"""Of the KV cache of a device: answers are short beside the contexts that they are made from."""


def check_one_pool(
    settings: EngineSettings, servers: Sequence[PlannedServer], platform: str = sys.platform, *, hosts: int = 1
) -> None:
    """Check that decode servers can read the prefill servers' KV in place. `hosts`: of the fleet.

    Raises:
        PlanError: this device, this system, or what is asked of a server rules it out.
        UnsupportedSglang: the installed release does.
    """
    if reason := why_no_one_pool(settings, servers, platform, hosts=hosts):
        raise _refused(reason)
    if (release := installed_sglang()) is not None:
        require_one_pool(release)


def why_no_one_pool(
    settings: EngineSettings, servers: Sequence[PlannedServer], platform: str = sys.platform, *, hosts: int = 1
) -> str | None:
    """Why decode servers cannot read the prefill servers' KV in place, whatever the release; None if they can."""
    if settings.device != "cpu":
        return "it works on CPU so far, and this fleet runs on GPUs"
    if platform != "linux":
        return "it needs Linux"
    if hosts > 1:
        return f"decode servers read memory of their own host, and the fleet has {hosts} hosts"
    if split := [server for server in servers if server.options.tp > 1]:
        return f"{split[0].table}.tp is {split[0].options.tp}, and it works with tp = 1"
    prefill = sum(server.role == "prefill" for server in servers)
    if prefill > MOST_SOURCES:
        return f"there are {prefill} prefill servers, and it works with {MOST_SOURCES} at most"
    return None


def check_pools(servers: Iterable[PlannedServer], memory: Iterable[ServerMemory]) -> None:
    """Check that decode servers have room for the addresses of each prefill server's pool. Raises PlanError."""
    if reason := why_too_large(servers, memory):
        raise _refused(reason)


def why_too_large(servers: Iterable[PlannedServer], memory: Iterable[ServerMemory]) -> str | None:
    """Which pool has too many rows to have its place in each decode server's addresses; None if all have theirs."""
    for server, its in zip(servers, memory, strict=True):
        if server.role == "prefill" and its.kv_tokens >= LARGEST_POOL:
            return f"{server.name} has {its.kv_tokens} KV tokens, and it works with {LARGEST_POOL - 1} at most"
    return None


def smallest_pool(settings: EngineSettings, servers: Sequence[PlannedServer], memory: Sequence[ServerMemory]) -> int:
    """Tokens of the smallest pool that has to hold a whole context."""
    return min(
        its.kv_tokens
        for server, its in zip(servers, memory, strict=True)
        if server.role == "prefill" or not settings.one_pool
    )


def pools_of_one(left: int, prefill: int, decode: int, longest: int) -> tuple[int, int]:
    """The size of a prefill and of a decode pool, in tokens, where so many servers of each share out `left`.

    `longest`: a pool that holds the longest request, which a prefill pool does as long as decode pools have a rest.
    """
    least = min(SMALLEST_POOL, left // (prefill + decode))
    of_prefill = min(max(int(left * PREFILL_PART), longest * prefill), left - least * decode)
    return of_prefill // prefill, (left - of_prefill) // decode


def _refused(reason: str) -> PlanError:
    return PlanError(f"--transfer shared: {reason}; launch with --transfer nixl")
