"""Main memory that processes map: a lender's buffers are one anonymous file, which readers get for reading alone."""

from __future__ import annotations

import ctypes
import fcntl
import logging
import math
import mmap
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from psserve.engine.handover.sglang.one_pool import PoolScheduler
from psserve.errors import EngineError

logger = logging.getLogger(__name__)

_LIBC = ctypes.CDLL(None, use_errno=True)
_READ, _WRITE, _NOTHING = 1, 2, 0
_SHARED, _PRIVATE, _FIXED, _ANONYMOUS, _NO_RESERVE = 0x01, 0x02, 0x10, 0x20, 0x4000
_ADDRESSES_ALONE = _PRIVATE | _ANONYMOUS | _NO_RESERVE
_FUTURE_WRITE = 0x0010
"""Linux's: what is mapped for writing by now stays so, and nothing else is. Python has no name for it before 3.13."""
_SEALS = _FUTURE_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_FAILED = ctypes.c_void_p(-1).value


class HostSpace:
    """Main memory. What is asked of it is done at once."""

    step = mmap.PAGESIZE
    most_elements: int | None = None

    def lend(self, span: int, count: int) -> tuple[list[int], list[int]]:
        """Make one file, whose pages live as long as somebody maps them, and which nobody else can write to or cut."""
        writable = os.memfd_create("psserve-kv", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(writable, span * count)
            start = _mmap(None, span * count, _READ | _WRITE, _SHARED, writable)
            _seal(writable)
            file = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(writable)
        return [start + number * span for number in range(count)], [file]

    def reserve(self, size: int) -> int:
        """Take addresses, for good, and no memory."""
        return _mmap(None, size, _NOTHING, _ADDRESSES_ALONE)

    def fill(self, address: int, size: int) -> None:
        """Put memory of this process's own at reserved addresses, all zero."""
        _mmap(address, size, _READ | _WRITE, _PRIVATE | _ANONYMOUS | _FIXED)

    def attach(self, address: int, span: int, files: Sequence[int], number: int) -> None:
        """Put a lender's piece `number` at reserved addresses, for reading alone."""
        _mmap(address, span, _READ, _SHARED | _FIXED, files[0], number * span)

    def detach(self, address: int, span: int) -> None:
        """Let it read as zeros again."""
        _mmap(address, span, _READ, _ADDRESSES_ALONE | _FIXED)

    def tensor(self, address: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return a tensor over memory that stays for the life of the process."""
        count = math.prod(shape)
        raw = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(address)
        return torch.frombuffer(raw, dtype=dtype, count=count).view(shape)

    def settle(self) -> None:
        """Wait for nothing."""

    def behind_forwards(self, scheduler: PoolScheduler) -> AbstractContextManager[None]:
        """Forwards are over when their functions return."""
        return nullcontext()

    def done(self) -> None:
        """All is done."""


def _seal(file: int) -> None:
    try:
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
    except OSError as error:
        logger.warning("psserve: this system cannot keep processes of this user from writing to KV: %s", error)


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
