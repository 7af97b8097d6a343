"""The KV buffers of a server's pool, in memory that prefill servers lend and decode servers read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psserve.engine.hooks import Hook, Kind
from psserve.engine.onepool.memory import LentMemory, ReadMemory
from psserve.errors import EngineError


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


def _create_to_lend(original: Callable[[Any], None], pool: Any) -> None:
    shape, buffers = _shape_of(pool), 2 * pool.layer_num
    MEMORY.lent = LentMemory(shape[0], shape[1:], pool.store_dtype, buffers)
    _give(pool, MEMORY.lent.tensors)


def _create_to_read(original: Callable[[Any], None], pool: Any) -> None:
    shape, buffers = _shape_of(pool), 2 * pool.layer_num
    MEMORY.read = ReadMemory(shape[0], shape[1:], pool.store_dtype, buffers, pool.page_size)
    _give(pool, MEMORY.read.tensors)


def _shape_of(pool: Any) -> tuple[int, ...]:
    keys, values = pool._kv_buffer_shapes()
    if keys != values:
        raise EngineError(f"KV whose keys are {keys} and values {values} cannot be read in place: use --transfer nixl")
    return tuple(keys)


def _give(pool: Any, tensors: list[Any]) -> None:
    pool.k_buffer, pool.v_buffer = tensors[: pool.layer_num], tensors[pool.layer_num :]


def _describe_own_rows(original: Callable[[Any], Any], pool: Any) -> Any:
    """AROUND `_build_kv_buffer_descs`, which takes every row for one of the pool's size."""
    rows, buffers = _shape_of(pool)[0], [*pool.k_buffer, *pool.v_buffer]
    _give(pool, [buffer[:rows] for buffer in buffers])
    try:
        return original(pool)
    finally:
        _give(pool, buffers)


_POOL = "sglang.srt.mem_cache.memory_pool.MHATokenToKVPool"
LENDING = (Hook(f"{_POOL}._create_buffers_normal", Kind.AROUND, _create_to_lend),)
"""Of a prefill server."""
READING = (
    Hook(f"{_POOL}._create_buffers_normal", Kind.AROUND, _create_to_read),
    Hook(f"{_POOL}._build_kv_buffer_descs", Kind.AROUND, _describe_own_rows),
)
"""Of a decode server."""
