"""What hands KV over where nobody said it (`--transfer auto`): one KV pool, where it gives and takes nothing.

Pools and the context are then as large as with copies, but contexts are stored once, and answers have the decode
servers' pools for themselves. What could be taken is an answer's length: it ends with the context, and there where a
decode server's pool ends it, too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from psserve.contracts.one_pool import longest_answer
from psserve.engine.versions import installed_sglang, runs_one_pool_unasked
from psserve.errors import PlanError
from psserve.fleet.plan.memory import ServerMemory
from psserve.fleet.plan.one_pool import smallest_pool, why_no_one_pool, why_too_large
from psserve.fleet.plan.planned import PlannedServer
from psserve.fleet.plan.settings import within_pool
from psserve.fleet.plan.sglang_args import EngineSettings


def chosen_transfer(
    settings: EngineSettings,
    servers: Sequence[PlannedServer],
    memory: Sequence[ServerMemory],
    *,
    explicit: bool,
    hosts: int,
    platform: str = sys.platform,
) -> tuple[EngineSettings, str]:
    """The settings with the transfer that suits a fleet of `hosts` hosts, and why it does.

    `settings` and `memory` are those of a fleet whose servers have copies; `explicit`: its context was asked for.

    Raises:
        PlanError: its pools do not hold that context.
    """
    settings = within_pool(settings, smallest_pool(settings, servers, memory), explicit=explicit)
    reason = (
        _why_not_on(settings.device)
        or _why_not_split(servers)
        or why_no_one_pool(servers, platform, hosts=hosts)
        or _why_not_with(installed_sglang())
        or why_too_large(servers, memory)
        or _why_answers_are_cut(settings, servers, memory)
    )
    if reason:
        return settings, reason
    return replace(settings, transfer="shared"), "contexts are stored once, and answers may be as long as the context"


def check_limits(settings: EngineSettings, servers: Sequence[PlannedServer], memory: Sequence[ServerMemory]) -> None:
    """Check that decode servers that come later take nothing either, with copies or with a pool that was chosen.

    Raises:
        PlanError: one would not hold the context, or an answer as long as that.
    """
    within_pool(settings, min(its.kv_tokens for its in memory), explicit=True)
    if settings.one_pool and (reason := _why_answers_are_cut(settings, servers, memory)):
        raise PlanError(f"{reason}: raise its kv_tokens, or launch with --transfer nixl")


def _why_not_on(device: str) -> str | None:
    return None if device == "cpu" else "nothing of it has run on a GPU yet"


def _why_not_split(servers: Sequence[PlannedServer]) -> str | None:
    return "with tp above 1 it is asked for by name" if any(server.options.tp > 1 for server in servers) else None


def _why_not_with(release: str | None) -> str | None:
    if release is None or runs_one_pool_unasked(release):
        return None
    return f"it is not the default with sglang {release}"


def _why_answers_are_cut(
    settings: EngineSettings, servers: Sequence[PlannedServer], memory: Sequence[ServerMemory]
) -> str | None:
    for server, its in zip(servers, memory, strict=True):
        longest = longest_answer(its.kv_tokens, settings.page_size)
        if server.role == "decode" and longest < settings.context_length:
            return f"{server.name} would end answers after {longest} tokens, of a context of {settings.context_length}"
    return None
