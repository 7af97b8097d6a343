"""Settings that all servers of a fleet have in common, resolved from options, base and machine."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from psserve.engine.versions import installed_sglang, require_hits
from psserve.errors import PlanError
from psserve.fleet.options.options import FleetOptions
from psserve.fleet.plan.allowance import Card, card
from psserve.fleet.plan.devices import Machine, choose
from psserve.fleet.plan.planned import PlannedServer
from psserve.fleet.plan.sglang_args import MOST_RESERVED, RESERVED_PART, EngineSettings, reserved_tokens
from psserve.zoo import Base
from psserve.zoo.disk.storage import read_json

CPU_CHUNK = 2_048
CPU_RUNNING = 32
CPU_PAGE = 16
GPU_PAGE = 64
"""Transfers between GPUs are bound by the number of their pieces, which are pages."""
AMPERE = (8, 0)
"""The first architecture that computes in bfloat16."""
CORES_A_SERVER = 4
"""Scheduler, tokenizer, detokenizer, and what moves KV: with fewer, one that spins takes the core of another."""
CPU_WAITING_S = 60
GPU_WAITING_MARGIN_S = 60
"""Beyond the router's own limit: on GPUs many prompts may be before one, and it is for the router to end the wait."""


def engine_settings(base: Base, options: FleetOptions, machine: Machine) -> EngineSettings:
    """The settings of a fleet with every `auto` resolved.

    Raises:
        PlanError: there is no such device, it has no such KV cache, the context is longer than the base's, or the piece
            of a prompt computed in one step is no whole number of pages.
        UnsupportedSglang: the eviction policy has no effect in the SGLang that is installed.
    """
    if options.eviction_policy != "lru" and (release := installed_sglang()) is not None:
        require_hits(release, options.eviction_policy)
    device = choose(machine, options.device)
    cpu = device == "cpu"
    context = options.context_length or base.context_length
    if context > base.context_length:
        raise PlanError(
            f"{options.said('context_length', context)}: the base {base.name} goes to {base.context_length}"
        )
    if cpu and options.kv_cache_dtype != "auto":
        raise PlanError(
            f"{options.said('kv_cache_dtype', options.kv_cache_dtype)}: fp8 needs GPUs, this fleet runs on CPU"
        )
    smallest = None if cpu else card(min(gpu.total_bytes for gpu in machine.gpus))
    page_size = options.page_size or (CPU_PAGE if cpu else GPU_PAGE)
    return EngineSettings(
        device=device,
        dtype=_dtype(machine, cpu) if options.dtype == "auto" else options.dtype,
        kv_cache_dtype=options.kv_cache_dtype,
        transfer="nixl" if options.transfer == "auto" else options.transfer,
        eviction_policy=options.eviction_policy,
        page_size=page_size,
        context_length=context,
        chunked_prefill_size=_chunk(options, page_size, smallest),
        max_running_requests=options.max_running_requests or (CPU_RUNNING if smallest is None else smallest.requests),
        waiting_timeout_s=CPU_WAITING_S if cpu else _gpu_waiting_s(options),
        rdma=machine.rdma and not cpu,
    )


def with_cores(settings: EngineSettings, machine: Machine, servers: int) -> EngineSettings:
    """The settings where, beside others, so many servers share the cores of this machine."""
    few = settings.device == "cuda" and machine.cores < CORES_A_SERVER * servers
    return replace(settings, few_cores=settings.few_cores or few)


def _dtype(machine: Machine, cpu: bool) -> str:
    if cpu:
        return "float32"
    has_bfloat16 = all(gpu.capability is None or gpu.capability >= AMPERE for gpu in machine.gpus)
    return "bfloat16" if has_bfloat16 else "float16"


def _chunk(options: FleetOptions, page_size: int, smallest: Card | None) -> int | None:
    """Longest piece of a prompt computed in one step: whole pages, or SGLang's prefill servers do not start.

    `smallest`: the GPU with the least memory; None: it runs on CPU. Returns None where SGLang's own choice will do.
    """
    asked = options.chunked_prefill_size
    if asked is None:
        usual = CPU_CHUNK if smallest is None else smallest.chunk
        if smallest is not None and usual % page_size == 0:
            return None
        return max(page_size, usual // page_size * page_size)
    if asked % page_size:
        raise PlanError(
            f"{options.said('chunked_prefill_size', asked)}: not a whole number of pages, which have {page_size} tokens"
            f" ({options.where('page_size')}): give a multiple of that, e.g. {-(-asked // page_size) * page_size}"
        )
    return asked


def _gpu_waiting_s(options: FleetOptions) -> int:
    return math.ceil(options.router.first_byte_timeout_secs) + GPU_WAITING_MARGIN_S


def within_pool(settings: EngineSettings, kv_tokens: int, *, explicit: bool) -> EngineSettings:
    """The settings with a context that the smallest KV pool can hold.

    SGLang accepts longer prompts and then waits for KV that never gets free, and whatever is behind them waits too.

    Raises:
        PlanError: the context was asked for explicitly, and does not fit.
    """
    longest = kv_tokens - reserved_tokens(kv_tokens) - settings.page_size
    if settings.context_length <= longest:
        return settings
    if explicit or longest < 1:
        raise PlanError(
            f"a KV pool of {kv_tokens} tokens holds at most {longest} of one request (the rest is reserved for answers "
            f"in progress), and the context is {settings.context_length}: raise --kv-tokens or lower --context-length"
        )
    return replace(settings, context_length=longest)


def pool_for(context_length: int, page_size: int) -> int:
    """The smallest KV pool of whole pages, in tokens, that a request of this length fits in (see `within_pool`)."""
    needed = context_length + page_size
    with_reserved = min(needed + MOST_RESERVED, -(-needed * RESERVED_PART // (RESERVED_PART - 1)))
    return -(-with_reserved // page_size) * page_size


def check_devices(base: Base, settings: EngineSettings, servers: Iterable[PlannedServer]) -> None:
    """Check what servers ask of GPUs against the kind of device and the base's attention heads.

    Raises:
        PlanError: GPUs are named on CPU, or the heads cannot be shared out to `tp` parts.
    """
    for server in servers:
        tp = server.options.tp
        if settings.device == "cpu" and server.options.gpus is not None:
            raise PlanError(f"{server.table}.gpus needs GPUs, and this fleet runs on CPU: remove it")
        if tp > 1:
            _check_heads(base, server.table, tp)


def check_equal_tp(servers: Iterable[PlannedServer], prefill_tp: int) -> None:
    """Check that KV is cut alike on both sides.

    Raises:
        PlanError: a server is split over another number of GPUs than the prefill servers.
    """
    for server in servers:
        if server.options.tp != prefill_tp:
            raise PlanError(
                f"{server.table}.tp = {server.options.tp}, and prefill servers have tp = {prefill_tp}: their KV caches"
                " would be cut into different heads, and sent in a piece for every token, layer and head; give prefill"
                " and decode the same tp"
            )


def _check_heads(base: Base, table: str, tp: int) -> None:
    config = base.path / "config.json"
    heads = {"key-value": base.num_kv_heads, "attention": read_json(config).get("num_attention_heads")}
    for kind, count in heads.items():
        if not isinstance(count, int):
            raise PlanError(f"{config}: num_attention_heads: expected a whole number, found {count!r}")
        if count % tp:
            raise PlanError(
                f"{table}.tp = {tp}: the base {base.name} has {count} {kind} heads, and {count} / {tp} is not whole;"
                " give a tp that divides it"
            )
