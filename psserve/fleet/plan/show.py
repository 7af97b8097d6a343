"""A plan as people and programs read it (`psserve launch --dry-run`). No secret is in it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from psserve.fleet.plan.fitting import PREFILL_PART
from psserve.fleet.plan.memory import amount
from psserve.fleet.plan.settings import pool_for
from psserve.fleet.plan.spec import FleetPlan, ProcessSpec, ServerSpec

PLAN_COLUMNS = (
    "server",
    "role",
    "module",
    "device",
    "weights",
    "KV",
    "KV tokens",
    "CUDA",
    "of GPU",
    "port",
    "bootstrap",
    "parsers",
)
MOST_NAMED = 20
"""Modules that are named one by one."""
ROUNDING = 0.01
"""Of a part: pools are whole pages."""
_SECRET = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD)S?$", re.IGNORECASE)


def plan_rows(plan: FleetPlan) -> list[tuple[str, ...]]:
    """The table of a plan: a row for each server, then the router's."""
    rows = [_row(plan, server) for server in plan.servers]
    return [*rows, ("router", "router", *("-" * 7), str(plan.router.port), "-", "-")]


def plan_commands(plan: FleetPlan, environ: Mapping[str, str] = os.environ) -> str:
    """Every command line as a shell takes it, in a shell whose environment is `environ`."""
    return "\n".join(
        f"# {process.name}\n{_command(process, environ)}\n" for process in (*plan.servers, plan.router)
    ).rstrip()


def plan_json(plan: FleetPlan) -> dict[str, Any]:
    """The plan as JSON. Memory is in bytes."""
    return {
        "url": plan.router.url,
        "zoo": str(plan.zoo),
        "base": plan.base,
        "context_length": plan.basis.settings.context_length,
        "transfer": plan.basis.settings.transfer,
        "why_transfer": plan.basis.why_transfer,
        "servers": [_process(plan, process) for process in (*plan.servers, plan.router)],
    }


def gpu_share(plan: FleetPlan, server: ServerSpec) -> float | None:
    """The part of each of its GPUs' memory that a server is planned to take; None on CPU."""
    if not server.gpus:
        return None
    smallest = min(plan.basis.host_of(server).machine.gpus[i].total_bytes for i in server.gpus)
    return server.memory.total_bytes / len(server.gpus) / smallest


def idle_gpus(plan: FleetPlan) -> list[int]:
    """Visible GPUs that a fleet on GPUs leaves alone."""
    used = {(server.host_name, i) for server in plan.servers for i in server.gpus}
    there = ((host.name, gpu.index) for host in plan.basis.hosts for gpu in host.machine.gpus)
    return [index for name, index in there if used and (name, index) not in used]


def context_note(plan: FleetPlan, of_base: int) -> str | None:
    """What to say where nobody asked for a context shorter than the base's, and the plan has one."""
    context = plan.basis.settings.context_length
    if plan.basis.options.context_length is not None or context >= of_base:
        return None
    smallest = min(plan.servers, key=lambda server: server.memory.kv_tokens)
    return (
        f"the context is cut to {context} tokens, of the base's {of_base}: {smallest.name} has a KV pool of"
        f" {smallest.memory.kv_tokens} tokens (--kv-tokens, fewer --modules or more GPUs make it larger)"
    )


def split_note(plan: FleetPlan) -> str | None:
    """What to say of pools whose sizes psserve chose, where prefill and decode servers share a device."""
    if plan.basis.settings.one_pool:
        return _one_pool_note(plan)
    sides = [[server for server in plan.servers if server.role == role] for role in ("prefill", "decode")]
    prefill, decode = ({gpu for server in side for gpu in server.gpus or (-1,)} for side in sides)
    wanted = plan.basis.options.prefill
    if wanted.kv_tokens is not None or wanted.memory_fraction is not None or prefill.isdisjoint(decode):
        return None
    first, second = (sum(server.memory.kv_tokens for server in side) for side in sides)
    part = first / (first + second)
    settings, smallest = plan.basis.settings, min(server.memory.kv_tokens for server in plan.servers)
    is_least = smallest <= pool_for(settings.context_length, settings.page_size) + settings.page_size
    more = "; a shorter --context-length gives them more" if is_least and part < PREFILL_PART - ROUNDING else ""
    return (
        f"{first} of {first + second} KV tokens ({part:.0%}) are prefill servers': the contexts of all modules go"
        f" through their pools (docs/fleet.md; kv_tokens in fleet.toml sets other sizes{more})"
    )


def _one_pool_note(plan: FleetPlan) -> str:
    of_prefill = sum(server.memory.kv_tokens for server in plan.servers if server.role == "prefill")
    own = [server.memory.kv_tokens for server in plan.servers if server.role == "decode"]
    untried = "; this has not run on a GPU yet" if plan.basis.settings.device == "cuda" else ""
    sizes = f"{min(own)}" if min(own) == max(own) else f"{min(own)} to {max(own)}"
    return (
        f"one KV pool: {of_prefill} tokens hold every context once, and decode servers read them in place; each has"
        f" {sizes} tokens of its own, which bound an answer (docs/one-pool.md; kv_tokens sets other sizes{untried})"
    )


def transfer_note(plan: FleetPlan) -> str | None:
    """What to say of the transfer that psserve chose, and why; None where it was asked for."""
    basis = plan.basis
    if basis.why_transfer is None:
        return None
    chosen = "shared" if basis.settings.one_pool else f"{basis.settings.transfer} and not shared"
    return f"--transfer auto is {chosen}: {basis.why_transfer} (docs/one-pool.md)"


def adapters_note(plan: FleetPlan) -> str | None:
    """What to say of modules that share servers as adapters, where there are any."""
    sharing = [server for server in plan.servers if server.adapters is not None]
    if not sharing or sharing[0].adapters is None:
        return None
    room = sharing[0].adapters
    return (
        f"{named([one.module for one in plan.adapters])} share {', '.join(server.name for server in sharing)}:"
        f" adapters of rank {room.rank} at most, {room.in_batch} in a batch ({amount(room.device_bytes)}),"
        f" {room.loaded} in main memory ({amount(room.main_bytes)})"
    )


def named(modules: Sequence[str]) -> str:
    """The modules' names, or some of them where they are many."""
    more = f" and {len(modules) - MOST_NAMED} more" if len(modules) > MOST_NAMED else ""
    return ", ".join(modules[:MOST_NAMED]) + more


def _row(plan: FleetPlan, server: ServerSpec) -> tuple[str, ...]:
    memory, share = server.memory, gpu_share(plan, server)
    return (
        server.name,
        server.role,
        server.module or "-",
        server.device,
        amount(memory.weight_bytes),
        amount(memory.kv_bytes),
        str(memory.kv_tokens),
        amount(memory.overhead_bytes) if server.gpus else "-",
        "-" if share is None else f"{share:.0%}",
        str(server.port),
        str(server.bootstrap_port or "-"),
        str(server.parsers),
    )


def _process(plan: FleetPlan, process: ProcessSpec) -> dict[str, Any]:
    server = process if isinstance(process, ServerSpec) else None
    return {
        "name": process.name,
        "role": process.role,
        "module": server.module if server else None,
        "port": process.port,
        "bootstrap_port": server.bootstrap_port if server else None,
        "tool_call_parser": server.parsers.tool_calls if server else None,
        "reasoning_parser": server.parsers.reasoning if server else None,
        "device": server.device if server else "cpu",
        "gpus": list(server.gpus) if server else [],
        "weight_bytes": server.memory.weight_bytes if server else None,
        "kv_bytes": server.memory.kv_bytes if server else None,
        "kv_tokens": server.memory.kv_tokens if server else None,
        "adapter_bytes": server.memory.adapter_bytes if server else None,
        "overhead_bytes": server.memory.overhead_bytes if server else None,
        "gpu_share": gpu_share(plan, server) if server else None,
        "command": list(process.command),
        "env": {name: _masked(name, value) for name, value in process.env.items()},
        "log": str(process.log),
    }


def _command(process: ProcessSpec, environ: Mapping[str, str]) -> str:
    """The command with the variables that psserve sets, but not those that it only lets through."""
    own = [f"{name}={_masked(name, value)}" for name, value in process.env.items() if environ.get(name) != value]
    return shlex.join(["env", *own, *process.command] if own else process.command)


def _masked(name: str, value: str) -> str:
    return "***" if _SECRET.search(name) else value
