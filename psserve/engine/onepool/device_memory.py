"""Memory of a GPU that processes map (psserve.engine.cuda.vmm). Nothing of it has run on a GPU yet.

CUDA maps a piece of memory whole: each of a lender's buffers is a piece of its own, with a file of its own. Addresses
of a decode server's buffers stay as they are, whatever is mapped behind its own rows, and so do captured graphs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from psserve.contracts.one_pool import MOST_ELEMENTS
from psserve.engine.cuda.vmm import GpuMemory
from psserve.engine.handover.sglang.one_pool import PoolScheduler
from psserve.engine.onepool.memory import Done


class DeviceSpace:
    """One GPU's memory, for the scheduler's thread."""

    most_elements: int | None = MOST_ELEMENTS

    def __init__(self, device: int, memory: GpuMemory | None = None) -> None:
        """`device`: its number among those that this process sees."""
        self._device = torch.device("cuda", device)
        self._memory = memory or GpuMemory(device)
        self.step = self._memory.step

    def lend(self, span: int, count: int) -> tuple[list[int], list[int]]:
        """Make pieces, a file each."""
        starts, files = [], []
        for _ in range(count):
            start, piece = self._memory.reserve(span), self._memory.make(span)
            self._memory.map(start, span, piece, writable=True)
            self._clear(start, span)
            starts.append(start)
            files.append(self._memory.export(piece))
            self._memory.drop(piece)
        return starts, files

    def reserve(self, size: int) -> int:
        """Take addresses, for good, and no memory."""
        return self._memory.reserve(size)

    def fill(self, address: int, size: int) -> None:
        """Put memory of this process's own at reserved addresses, all zero."""
        self._map(address, size, self._memory.make(size), writable=True)
        self._clear(address, size)

    def attach(self, address: int, span: int, files: Sequence[int], number: int) -> None:
        """Put a lender's piece `number` at reserved addresses, for reading alone."""
        self._map(address, span, self._memory.found_by(files[number]), writable=False)

    def detach(self, address: int, span: int) -> None:
        """Take it away again. Nothing that still runs may read there."""
        self._memory.unmap(address, span)

    def tensor(self, address: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return a tensor over memory that stays for the life of the process. Its beginning must be mapped."""
        raw = torch.as_tensor(_Bytes(address, math.prod(shape) * dtype.itemsize), device=self._device)
        return raw.view(dtype).view(shape)

    def settle(self) -> None:
        """Wait for all that this process asked of the GPU."""
        torch.cuda.synchronize(self._device)

    def behind_forwards(self, scheduler: PoolScheduler) -> AbstractContextManager[Any]:
        """Within it, work is given to the stream of the scheduler's forwards.

        A slot that was free when a request got it may still be written to by a forward that was launched before.
        """
        ahead = scheduler.forward_stream if scheduler.enable_overlap else torch.cuda.current_stream(self._device)
        return torch.cuda.stream(ahead)

    def done(self) -> Done:
        """What tells when the work so far is done."""
        event: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _clear(self, address: int, size: int) -> None:
        self.tensor(address, (size,), torch.uint8).zero_()

    def _map(self, address: int, size: int, piece: Any, *, writable: bool) -> None:
        try:
            self._memory.map(address, size, piece, writable=writable)
        finally:
            self._memory.drop(piece)  # what is mapped keeps it


class _Bytes:
    """Memory as torch takes it from others."""

    def __init__(self, address: int, size: int) -> None:
        self.__cuda_array_interface__ = {"shape": (size,), "typestr": "|u1", "data": (address, False), "version": 3}
