"""Memory for KV of both kinds; that of a GPU over a driver in main memory, and without streams."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from psserve.engine.cuda.vmm import GpuMemory
from psserve.engine.onepool.device_memory import DeviceSpace
from psserve.engine.onepool.host_memory import HostSpace
from tests.engine.cuda.fake_driver import FakeDriver, Gpu, inode


def open_files(file: int) -> int:
    """How often this process has a file open, that one included."""
    return sum(inode(int(name)) == inode(file) for name in os.listdir("/proc/self/fd"))


class Work:
    """Something that a GPU was asked to do, and has done once a test says so."""

    def __init__(self) -> None:
        self.is_done = False

    def query(self) -> bool:
        return self.is_done


class FakeDeviceSpace(DeviceSpace):
    """What needs torch's own CUDA is told or done in main memory."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu, self.driver = gpu, FakeDriver(gpu)
        self.asked: list[Work] = []
        self.settled = 0
        super().__init__(0, GpuMemory(0, self.driver))

    def tensor(self, address: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return HostSpace().tensor(address, shape, dtype)

    def settle(self) -> None:
        self.settled += 1

    def behind_forwards(self, scheduler: Any) -> AbstractContextManager[Any]:
        return nullcontext()

    def done(self) -> Work:
        self.asked.append(Work())
        return self.asked[-1]
