"""A CUDA driver in main memory, as far as psserve.engine.cuda.vmm needs one.

It stands for the real one, which cannot run without a GPU, and keeps to its rules for virtual memory: sizes and
addresses are multiples of the granularity, memory is mapped whole, into reserved addresses, once; it is used after
access was set, with no more access than that; it lives as long as a handle, a mapping or a file names it, and there is
only so much of it. What is mapped can be read and written to at its address. It knows nothing of streams.
"""

from __future__ import annotations

import itertools
import mmap
import os
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any

from psserve.engine.onepool.host_memory import _FIXED, _NOTHING, _READ, _SHARED, _WRITE, HostSpace, _mmap

STEP = 64 * mmap.PAGESIZE


class Result(Enum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NOT_SUPPORTED = 801


class Access(IntEnum):
    CU_MEM_ACCESS_FLAGS_PROT_READ = _READ
    CU_MEM_ACCESS_FLAGS_PROT_READWRITE = _READ | _WRITE


class HandleType(Enum):
    CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR = 1


class LocationType(Enum):
    CU_MEM_LOCATION_TYPE_DEVICE = 1


class AllocationType(Enum):
    CU_MEM_ALLOCATION_TYPE_PINNED = 1


class Granularity(Enum):
    CU_MEM_ALLOC_GRANULARITY_RECOMMENDED = 1


@dataclass(eq=False)
class Piece:
    """Physical memory."""

    size: int
    file: int
    handles: int = 0
    mapped: int = 0

    @property
    def inode(self) -> int:
        return os.fstat(self.file).st_ino

    def lives(self) -> bool:
        return bool(self.handles or self.mapped or self._named_by_files())

    def _named_by_files(self) -> bool:
        others = {int(name) for name in os.listdir("/proc/self/fd")} - {self.file}
        return any(inode(file) == self.inode for file in others)


def inode(file: int) -> int | None:
    """Of an open file; None: it is closed."""
    try:
        return os.fstat(file).st_ino
    except OSError:
        return None


@dataclass
class Gpu:
    """The memory of a GPU, for all processes."""

    bytes: int = 1 << 40
    pieces: list[Piece] = field(default_factory=list)

    @property
    def used(self) -> int:
        return sum(piece.size for piece in self.pieces if piece.lives())


@dataclass
class Mapping:
    size: int
    piece: Piece
    access: int = _NOTHING


def _device(location: Any) -> bool:
    return (location.type, location.id) == (LocationType.CU_MEM_LOCATION_TYPE_DEVICE, 0)


class FakeDriver:
    """The driver of one process, with the functions and types of cuda.bindings.driver. There is GPU 0."""

    CUresult = Result
    CUmemAccess_flags = Access
    CUmemAllocationHandleType = HandleType
    CUmemLocationType = LocationType
    CUmemAllocationType = AllocationType
    CUmemAllocationGranularity_flags = Granularity

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._numbers = itertools.count(1)
        self._reserved: dict[int, int] = {}
        self.mapped: dict[int, Mapping] = {}
        self._handles: dict[int, Piece] = {}

    @staticmethod
    def CUmemAllocationProp() -> Any:
        return SimpleNamespace(type=None, requestedHandleTypes=None, location=SimpleNamespace(type=None, id=None))

    @staticmethod
    def CUmemAccessDesc() -> Any:
        return SimpleNamespace(flags=None, location=SimpleNamespace(type=None, id=None))

    def cuMemGetAllocationGranularity(self, prop: Any, option: Any) -> tuple[Any, ...]:
        return self._unless(not _device(prop.location), STEP)

    def cuMemAddressReserve(self, size: int, alignment: int, addr: int, flags: int) -> tuple[Any, ...]:
        if size % STEP or alignment % STEP or addr or flags:
            return (Result.CUDA_ERROR_INVALID_VALUE, 0)
        first = -(-HostSpace().reserve(size + alignment) // alignment) * alignment
        self._reserved[first] = size
        return (Result.CUDA_SUCCESS, first)

    def cuMemCreate(self, size: int, prop: Any, flags: int) -> tuple[Any, ...]:
        if size % STEP or not size or flags or not _device(prop.location) or not isinstance(prop.type, AllocationType):
            return (Result.CUDA_ERROR_INVALID_VALUE, 0)
        if self._gpu.used + size > self._gpu.bytes:
            return (Result.CUDA_ERROR_OUT_OF_MEMORY, 0)
        file = os.memfd_create("gpu")
        os.ftruncate(file, size)
        piece = Piece(size, file)
        self._gpu.pieces.append(piece)
        return (Result.CUDA_SUCCESS, self._handle(piece))

    def cuMemRelease(self, handle: int) -> tuple[Any, ...]:
        if (piece := self._handles.pop(handle, None)) is None:
            return (Result.CUDA_ERROR_INVALID_VALUE,)
        piece.handles -= 1
        return (Result.CUDA_SUCCESS,)

    def cuMemMap(self, ptr: int, size: int, offset: int, handle: int, flags: int) -> tuple[Any, ...]:
        piece = self._handles.get(handle)
        inside = any(first <= ptr and ptr + size <= first + length for first, length in self._reserved.items())
        taken = any(first < ptr + size and ptr < first + its.size for first, its in self.mapped.items())
        wrong = ptr % STEP or offset or flags or piece is None or piece.size != size
        if wrong or not inside or taken:
            return (Result.CUDA_ERROR_INVALID_VALUE,)
        assert piece is not None
        piece.mapped += 1
        self.mapped[ptr] = Mapping(size, piece)
        return (Result.CUDA_SUCCESS,)

    def cuMemSetAccess(self, ptr: int, size: int, desc: Any, count: int) -> tuple[Any, ...]:
        mapping = self.mapped.get(ptr)
        if (
            mapping is None
            or mapping.size != size
            or len(desc) != count
            or not all(_device(it.location) for it in desc)
        ):
            return (Result.CUDA_ERROR_INVALID_VALUE,)
        mapping.access = desc[0].flags
        _mmap(ptr, size, mapping.access, _SHARED | _FIXED, mapping.piece.file)
        return (Result.CUDA_SUCCESS,)

    def cuMemUnmap(self, ptr: int, size: int) -> tuple[Any, ...]:
        mapping = self.mapped.get(ptr)
        if mapping is None or mapping.size != size:
            return (Result.CUDA_ERROR_INVALID_VALUE,)
        del self.mapped[ptr]
        mapping.piece.mapped -= 1
        HostSpace().detach(ptr, size)
        return (Result.CUDA_SUCCESS,)

    def cuMemExportToShareableHandle(self, handle: int, handleType: Any, flags: int) -> tuple[Any, ...]:
        piece = self._handles.get(handle)
        if piece is None or flags or not isinstance(handleType, HandleType):
            return (Result.CUDA_ERROR_INVALID_VALUE, 0)
        return (Result.CUDA_SUCCESS, os.dup(piece.file))

    def cuMemImportFromShareableHandle(self, osHandle: int, shHandleType: Any) -> tuple[Any, ...]:
        found = [piece for piece in self._gpu.pieces if piece.inode == inode(osHandle)]
        return self._unless(not found, self._handle(found[0]) if found else 0)

    def end(self) -> None:
        """End the process: nothing of it is left but files that others hold."""
        for piece in self._handles.values():
            piece.handles -= 1
        for mapping in self.mapped.values():
            mapping.piece.mapped -= 1
        self._handles, self.mapped = {}, {}

    def _handle(self, piece: Piece) -> int:
        piece.handles += 1
        number = next(self._numbers)
        self._handles[number] = piece
        return number

    @staticmethod
    def _unless(wrong: bool, value: int) -> tuple[Any, ...]:
        return (Result.CUDA_ERROR_INVALID_VALUE, 0) if wrong else (Result.CUDA_SUCCESS, value)
