"""KV memory that processes of one machine map: a prefill server writes it, decode servers read it in place.

The prefill server's buffers are an anonymous file. Its pages live as long as somebody maps them, and are never given to
another: not even the server's end changes what its readers read. Readers get the file opened for reading alone.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch

from psserve.contracts.one_pool import LARGEST_POOL, MOST_SOURCES
from psserve.engine.onepool.layout import Layout, Pool
from psserve.errors import EngineError

_LIBC = ctypes.CDLL(None, use_errno=True)
_READ, _WRITE, _NOTHING = 1, 2, 0
_SHARED, _PRIVATE, _FIXED, _ANONYMOUS, _NO_RESERVE = 0x01, 0x02, 0x10, 0x20, 0x4000
_FAILED = ctypes.c_void_p(-1).value


class LentMemory:
    """A prefill server's buffers, of which others may read every row."""

    def __init__(self, rows: int, tail: tuple[int, ...], dtype: torch.dtype, buffers: int) -> None:
        """Allocate `buffers` of [rows, *tail], all zero."""
        self.pool = Pool(os.urandom(8).hex(), rows, math.prod(tail) * dtype.itemsize, buffers)
        writable = os.memfd_create("psserve-kv")
        try:
            os.ftruncate(writable, self.pool.file_bytes)
            start = _mmap(None, self.pool.file_bytes, _READ | _WRITE, _SHARED, writable)
            self.file = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
            """For readers: it cannot be mapped for writing."""
        finally:
            os.close(writable)
        self.tensors = [_tensor(start + i * self.pool.span, (rows, *tail), dtype) for i in range(buffers)]


@dataclass(eq=False)
class Region:
    """A prefill server's rows in a decode server's buffers."""

    place: int
    first_row: int
    users: int = 0
    """Requests that read there, or were promised to."""
    ended: bool = False
    """Its server is gone: nobody new will read there."""


class ReadMemory:
    """A decode server's buffers: its own rows, and those of every prefill server that it was told of."""

    def __init__(self, rows: int, tail: tuple[int, ...], dtype: torch.dtype, buffers: int, page_size: int) -> None:
        """Allocate `buffers` of [at least `rows`, *tail], own rows all zero."""
        self.layout = Layout.of(rows, math.prod(tail) * dtype.itemsize, buffers, page_size)
        self._regions: dict[int, Region] = {}
        self._starts: list[int] = []
        self.tensors: list[torch.Tensor] = []
        own_bytes = self.layout.own_rows * self.layout.row_bytes
        for _ in range(buffers):
            start = _mmap(None, self.layout.rows * self.layout.row_bytes, _NOTHING, _PRIVATE | _ANONYMOUS | _NO_RESERVE)
            _mmap(start, own_bytes, _READ | _WRITE, _PRIVATE | _ANONYMOUS | _FIXED)
            self._starts.append(start)
            self.tensors.append(_tensor(start, (self.layout.rows, *tail), dtype))

    def map(self, pool: Pool, file: int) -> Region:
        """Map a prefill server's rows for reading. Raises EngineError if they do not fit or no place is free."""
        if reason := self.layout.why_not(pool):
            raise EngineError(f"the KV of a prefill server cannot be read in place: {reason}")
        place = self._free_place()
        region = Region(place, self.layout.first_row(place))
        for i, start in enumerate(self._starts):
            _mmap(start + region.first_row * pool.row_bytes, pool.span, _READ, _SHARED | _FIXED, file, i * pool.span)
        self._regions[place] = region
        return region

    def leave(self, region: Region) -> None:
        """One request less reads there. What a server that is gone has lent is unmapped behind the last of them."""
        region.users -= 1
        if region.ended and not region.users:
            self._unmap(region)

    def _free_place(self) -> int:
        for region in [region for region in self._regions.values() if region.ended and not region.users]:
            self._unmap(region)
        for place in range(MOST_SOURCES):
            if place not in self._regions:
                return place
        raise EngineError(f"the KV of {MOST_SOURCES} prefill servers is read here already, and there is one more")

    def _unmap(self, region: Region) -> None:
        """Let its place read as zeros: nobody else may map the server's memory, which goes with that."""
        del self._regions[region.place]
        offset, length = region.first_row * self.layout.row_bytes, LARGEST_POOL * self.layout.row_bytes
        for start in self._starts:
            _mmap(start + offset, length, _READ, _PRIVATE | _FIXED | _ANONYMOUS | _NO_RESERVE)


def _mmap(address: int | None, length: int, protection: int, flags: int, file: int = -1, offset: int = 0) -> int:
    found: int = _the_mmap()(address, length, protection, flags, file, offset)
    if found == _FAILED:
        number = ctypes.get_errno()
        raise EngineError(f"cannot map {length} bytes of memory for KV: {os.strerror(number)}")
    return found


def _the_mmap() -> Callable[..., int]:
    function = _LIBC.mmap
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    return function


def _tensor(address: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor over memory that stays for the life of the process."""
    count = math.prod(shape)
    raw = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(address)
    return torch.frombuffer(raw, dtype=dtype, count=count).view(shape)
