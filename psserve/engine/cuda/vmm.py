"""Memory of a GPU piece by piece, by the driver's virtual memory management: addresses are reserved, memory is made,
mapped there, and given to other processes as file descriptors.

A thin layer over cuda.bindings.driver (of NVIDIA's cuda-bindings, which SGLang needs on GPUs): names, and errors of
psserve's. Nothing of it has run on a GPU yet. Tests run it against a driver in memory that keeps to the same rules, and
compare its calls with the signatures of the real one (tests/engine/cuda).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from psserve.errors import EngineError

_AS_FILE = "CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR"


class GpuMemory:
    """What one process maps of one GPU's memory. All sizes and addresses are multiples of `step` bytes."""

    def __init__(self, device: int, driver: Any = None) -> None:
        """`device`: its number among those that this process sees. `driver`: left out: the installed one."""
        self._driver = _installed() if driver is None else driver
        self._device = device
        self._kind = self._kind_of_memory()
        flag = self._driver.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_RECOMMENDED
        self.step = int(self._call("cuMemGetAllocationGranularity", self._kind, flag))

    def reserve(self, size: int) -> int:
        """Take addresses and no memory; return the first."""
        return int(self._call("cuMemAddressReserve", size, self.step, 0, 0))

    def make(self, size: int) -> Any:
        """Make memory that other processes can be given. It lives until it is dropped, mapped nowhere and no file."""
        return self._call("cuMemCreate", size, self._kind, 0)

    def map(self, address: int, size: int, memory: Any, *, writable: bool) -> None:
        """Map all of it at reserved addresses, and give this GPU access."""
        self._call("cuMemMap", address, size, 0, memory, 0)
        try:
            self._call("cuMemSetAccess", address, size, [self._access(writable)], 1)
        except EngineError:
            self.unmap(address, size)
            raise

    def unmap(self, address: int, size: int) -> None:
        """Unmap what was mapped there as one. Nothing that runs on the GPU may use it."""
        self._call("cuMemUnmap", address, size)

    def drop(self, memory: Any) -> None:
        """Give up the right to map it. What is mapped stays."""
        self._call("cuMemRelease", memory)

    def export(self, memory: Any) -> int:
        """Return a file that names the memory for other processes: the caller's to close."""
        return int(self._call("cuMemExportToShareableHandle", memory, self._as_file, 0))

    def found_by(self, file: int) -> Any:
        """Return the memory that another process's file names. The file may be closed then."""
        return self._call("cuMemImportFromShareableHandle", file, self._as_file)

    @property
    def _as_file(self) -> Any:
        return getattr(self._driver.CUmemAllocationHandleType, _AS_FILE)

    def _kind_of_memory(self) -> Any:
        kind = self._driver.CUmemAllocationProp()
        kind.type = self._driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        kind.requestedHandleTypes = self._as_file
        self._place(kind.location)
        return kind

    def _access(self, writable: bool) -> Any:
        flags = self._driver.CUmemAccess_flags
        access = self._driver.CUmemAccessDesc()
        access.flags = flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE if writable else flags.CU_MEM_ACCESS_FLAGS_PROT_READ
        self._place(access.location)
        return access

    def _place(self, location: Any) -> None:
        location.type = self._driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        location.id = self._device

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *found = getattr(self._driver, name)(*arguments)
        results = self._driver.CUresult
        if error == results.CUDA_ERROR_OUT_OF_MEMORY:
            raise EngineError(f"GPU {self._device} has no memory left for KV ({name}): lower --kv-tokens")
        if error != results.CUDA_SUCCESS:
            raise EngineError(f"GPU {self._device}: {name} fails with {error.name}; launch with --transfer nixl")
        return found[0] if found else None


def _installed() -> Any:
    try:
        return import_module("cuda.bindings.driver")
    except ImportError as error:
        raise EngineError(f"--transfer shared needs the package cuda-bindings on GPUs: {error}") from error
