"""The KV buffers of a server's pool, in memory that prefill servers lend and decode servers read."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from psserve.contracts.one_pool import LARGEST_POOL
from psserve.engine.handover.sglang.one_pool import KVPool, PoolConfigurator
from psserve.engine.hooks import Hook, Kind
from psserve.engine.onepool.device_memory import DeviceSpace
from psserve.engine.onepool.host_memory import HostSpace
from psserve.engine.onepool.memory import LentMemory, ReadMemory, Space
from psserve.engine.settings import Settings
from psserve.errors import EngineError

logger = logging.getLogger(__name__)


@dataclass
class Memory:
    """This process's memory for KV, once its pool is there: one of the two."""

    lent: LentMemory | None = None
    read: ReadMemory | None = None

    def lender(self) -> LentMemory:
        assert self.lent is not None, "a prefill server's pool comes before what moves its KV"
        return self.lent

    def reader(self) -> ReadMemory:
        assert self.read is not None, "a decode server's pool comes before what moves its KV"
        return self.read


MEMORY = Memory()  # a process has one scheduler, with one pool


def _create_to_lend(original: Callable[..., None], pool: KVPool) -> None:
    shape, buffers = _shape_of(pool), 2 * pool.layer_num
    MEMORY.lent = LentMemory(_space_of(pool), shape[0], shape[1:], pool.store_dtype, buffers)
    _give(pool, MEMORY.lent.tensors)


def _create_to_read(original: Callable[..., None], pool: KVPool) -> None:
    shape, buffers = _shape_of(pool), 2 * pool.layer_num
    lent_rows = Settings.from_environment().lent_rows or LARGEST_POOL
    MEMORY.read = ReadMemory(_space_of(pool), shape[0], shape[1:], pool.store_dtype, buffers, pool.page_size, lent_rows)
    _give(pool, MEMORY.read.tensors)


def _space_of(pool: KVPool) -> Space:
    if torch.device(pool.device).type == "cuda":
        return DeviceSpace(torch.cuda.current_device())
    return HostSpace()


def _shape_of(pool: KVPool) -> tuple[int, ...]:
    keys, values = pool._kv_buffer_shapes()
    if keys != values:
        raise EngineError(f"KV whose keys are {keys} and values {values} cannot be read in place: use --transfer nixl")
    return tuple(keys)


def _give(pool: KVPool, tensors: list[torch.Tensor]) -> None:
    pool.k_buffer, pool.v_buffer = tensors[: pool.layer_num], tensors[pool.layer_num :]


def _describe_own_rows(original: Callable[..., Any], pool: KVPool) -> Any:
    """AROUND `_build_kv_buffer_descs`, which takes every row for one of the pool's size."""
    rows, buffers = _shape_of(pool)[0], [*pool.k_buffer, *pool.v_buffer]
    _give(pool, [buffer[:rows] for buffer in buffers])
    try:
        return original(pool)
    finally:
        _give(pool, buffers)


def _wait_for_memory(original: Callable[..., Any], configurator: PoolConfigurator, before: int) -> Any:
    """AROUND `_resolve_memory_pool_config`: until as much of the GPU is free as the pool needs.

    The memory of a server that ended is free when the last answer that reads there has ended. SGLang would make a
    smaller pool, or none.
    """
    from sglang.srt.runtime_context import get_schedule

    wanted = get_schedule().max_total_tokens
    if wanted is None or torch.device(configurator.device).type != "cuda":
        return original(configurator, before)
    for _ in range(_LOOKS):  # not a time: parts of one server must look equally often
        try:
            config = original(configurator, before)
            if config.max_total_num_tokens >= wanted // configurator.page_size * configurator.page_size:
                return config
        except (ValueError, RuntimeError) as error:  # SGLang's for no memory at all
            logger.info("psserve: no memory for KV yet: %s", error)
        time.sleep(_LOOK_EVERY_S)
    return original(configurator, before)


_LOOKS = 600
_LOOK_EVERY_S = 0.5
_POOL = "sglang.srt.mem_cache.memory_pool.MHATokenToKVPool"
LENDING = (
    Hook(f"{_POOL}._create_buffers_normal", Kind.AROUND, _create_to_lend),
    Hook(
        "sglang.srt.mem_cache.kv_cache_configurator.KVCacheConfigurator._resolve_memory_pool_config",
        Kind.AROUND,
        _wait_for_memory,
    ),
)
"""Of a prefill server."""
READING = (
    Hook(f"{_POOL}._create_buffers_normal", Kind.AROUND, _create_to_read),
    Hook(f"{_POOL}._build_kv_buffer_descs", Kind.AROUND, _describe_own_rows),
)
"""Of a decode server."""
