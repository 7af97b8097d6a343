"""What psserve asks of CUDA's driver is what the driver takes; its refusals have names."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import pytest

from psserve.engine.cuda import vmm
from psserve.engine.cuda.vmm import GpuMemory
from psserve.engine.onepool.host_memory import _READ, _WRITE
from psserve.errors import EngineError
from tests.engine.cuda.fake_driver import STEP, FakeDriver, Gpu, Mapping


@pytest.fixture
def gpu() -> Gpu:
    return Gpu(8 * STEP)


@pytest.fixture
def driver(gpu: Gpu) -> FakeDriver:
    return FakeDriver(gpu)


@pytest.fixture
def memory(driver: FakeDriver) -> GpuMemory:
    return GpuMemory(0, driver)


def only(driver: FakeDriver) -> Mapping:
    (mapping,) = driver.mapped.values()
    return mapping


@pytest.mark.parametrize(("writable", "access"), [(True, _READ | _WRITE), (False, _READ)])
def test_memory_is_mapped_with_the_access_that_is_asked_for(
    memory: GpuMemory, driver: FakeDriver, writable: bool, access: int
) -> None:
    memory.map(memory.reserve(STEP), STEP, memory.make(STEP), writable=writable)
    assert only(driver).access == access


def test_memory_goes_to_another_process_by_its_file(memory: GpuMemory, driver: FakeDriver, gpu: Gpu) -> None:
    other = FakeDriver(gpu)
    its = GpuMemory(0, other)
    made = memory.make(2 * STEP)
    file = memory.export(made)
    found = its.found_by(file)
    os.close(file)
    its.map(its.reserve(2 * STEP), 2 * STEP, found, writable=False)
    memory.map(memory.reserve(2 * STEP), 2 * STEP, made, writable=True)
    assert only(other).piece is only(driver).piece


def test_what_is_mapped_outlives_the_right_to_map_it_and_ends_when_it_is_unmapped(memory: GpuMemory, gpu: Gpu) -> None:
    address, made = memory.reserve(STEP), memory.make(STEP)
    memory.map(address, STEP, made, writable=True)
    memory.drop(made)
    assert gpu.used == STEP
    memory.unmap(address, STEP)
    assert gpu.used == 0


def test_more_than_there_is_is_refused_by_name(memory: GpuMemory) -> None:
    memory.make(8 * STEP)
    with pytest.raises(EngineError, match=r"^GPU 0 has no memory left for KV \(cuMemCreate\)"):
        memory.make(STEP)


def test_what_the_driver_refuses_is_told_by_its_name(memory: GpuMemory) -> None:
    with pytest.raises(EngineError, match="cuMemUnmap fails with CUDA_ERROR_INVALID_VALUE"):
        memory.unmap(STEP, STEP)


def test_memory_without_access_is_not_left_mapped(
    memory: GpuMemory, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "cuMemSetAccess", lambda *_: (driver.CUresult.CUDA_ERROR_NOT_SUPPORTED,))
    with pytest.raises(EngineError, match="cuMemSetAccess fails with CUDA_ERROR_NOT_SUPPORTED"):
        memory.map(memory.reserve(STEP), STEP, memory.make(STEP), writable=False)
    assert not driver.mapped


def test_without_nvidias_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cuda.bindings", None)
    with pytest.raises(EngineError, match="needs the package cuda-bindings"):
        GpuMemory(0)


FUNCTIONS = [name for name in vars(FakeDriver) if name.startswith("cu")]
TYPES = [name for name in vars(FakeDriver) if name.startswith("CU")]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_installed_driver_takes_what_the_one_for_tests_takes(name: str) -> None:
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is of the package set for GPUs")
    ours = [*inspect.signature(getattr(FakeDriver, name)).parameters][1:]
    assert [*inspect.signature(getattr(driver, name)).parameters] == ours


@pytest.mark.parametrize("name", TYPES)
def test_the_installed_driver_has_the_types_and_values_that_are_named(name: str) -> None:
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is of the package set for GPUs")
    ours, theirs = getattr(FakeDriver, name), getattr(driver, name)
    if inspect.isclass(ours):
        assert {member.name for member in ours} <= {member.name for member in theirs}  # type: ignore[attr-defined]
    else:
        assert all(hasattr(theirs(), field) for field in vars(ours()))


def test_all_that_is_called_is_there_for_tests() -> None:
    called = set(__import__("re").findall(r'"(cu[A-Z]\w+)"', Path(vmm.__file__).read_text()))
    assert called == set(FUNCTIONS)
