"""A decode server sees what a prefill server writes, cannot write there itself, and goes on reading when it is gone."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from psserve.contracts.one_pool import MOST_SOURCES
from psserve.engine.onepool.host_memory import HostSpace
from psserve.engine.onepool.memory import LentMemory, ReadMemory, Space
from psserve.errors import EngineError
from tests.engine.cuda.fake_driver import STEP, Gpu
from tests.engine.onepool.spaces import FakeDeviceSpace

TAIL = (2, 8)
ROWS, BUFFERS, PAGE = 40, 4, 16
NOBODY = torch.zeros(3, 50, dtype=torch.int32)
"""A scheduler's table without requests."""


@pytest.fixture
def gpu() -> Gpu:
    return Gpu()


@pytest.fixture(params=["host", "device"])
def space(request: pytest.FixtureRequest, gpu: Gpu) -> Callable[[], Space]:
    """Makes the memory that a process sees."""
    return HostSpace if request.param == "host" else lambda: FakeDeviceSpace(gpu)


@pytest.fixture
def lent(space: Callable[[], Space]) -> Callable[..., LentMemory]:
    def lent(rows: int = ROWS, tail: tuple[int, ...] = TAIL) -> LentMemory:
        return LentMemory(space(), rows, tail, torch.float32, BUFFERS)

    return lent


@pytest.fixture
def reader(space: Callable[[], Space]) -> ReadMemory:
    return ReadMemory(space(), ROWS, TAIL, torch.float32, BUFFERS, PAGE)


Lend = Callable[..., LentMemory]


def test_what_is_lent_is_read_in_place(lent: Lend, reader: ReadMemory) -> None:
    source = lent()
    region = reader.map(source.pool, source.files)
    for number, (theirs, ours) in enumerate(zip(source.tensors, reader.tensors, strict=True)):
        theirs[:] = torch.arange(ROWS).view(ROWS, 1, 1) + 100 * number
        assert torch.equal(ours[region.first_row : region.first_row + ROWS], theirs)


def test_all_is_zero_at_first_and_own_rows_are_nobody_elses(lent: Lend, reader: ReadMemory) -> None:
    source = lent()
    reader.map(source.pool, source.files)
    own = reader.layout.own_rows
    for tensor in reader.tensors:
        assert not tensor[:own].any()
        tensor[:own] = 1
    assert not any(tensor.any() for tensor in source.tensors)


def test_two_servers_have_rows_of_their_own(lent: Lend, reader: ReadMemory) -> None:
    first, second = lent(), lent(rows=20)
    at_first, at_second = reader.map(first.pool, first.files), reader.map(second.pool, second.files)
    first.tensors[1][:], second.tensors[1][:] = 1, 2
    assert (reader.tensors[1][at_first.first_row : at_first.first_row + ROWS] == 1).all()
    assert (reader.tensors[1][at_second.first_row : at_second.first_row + 20] == 2).all()
    assert first.pool.generation != second.pool.generation


def test_what_is_mapped_outlives_its_files(lent: Lend, reader: ReadMemory) -> None:
    source = lent()
    source.tensors[0][:] = 7
    region = reader.map(source.pool, source.files)
    for file in source.files:
        os.close(file)
    del source
    gc.collect()
    assert (reader.tensors[0][region.first_row : region.first_row + ROWS] == 7).all()


def test_the_place_of_a_server_that_is_gone_is_used_again_once_nobody_reads_there(
    lent: Lend, reader: ReadMemory
) -> None:
    sources = [lent() for _ in range(MOST_SOURCES + 1)]
    regions = [reader.map(source.pool, source.files) for source in sources[:-1]]
    regions[2].ended, regions[2].users = True, 1
    reader.let_go(NOBODY)
    with pytest.raises(EngineError, match=f"the KV of {MOST_SOURCES} prefill servers is read here already"):
        reader.map(sources[-1].pool, sources[-1].files)
    regions[2].users = 0
    reader.let_go(NOBODY)
    sources[-1].tensors[3][:] = 5
    again = reader.map(sources[-1].pool, sources[-1].files)
    assert again.first_row == regions[2].first_row
    assert (reader.tensors[3][again.first_row : again.first_row + ROWS] == 5).all()


def test_what_a_server_that_is_gone_lent_is_unmapped_behind_its_last_reader(lent: Lend, reader: ReadMemory) -> None:
    source, other = lent(), lent()
    region, stays = reader.map(source.pool, source.files), reader.map(other.pool, other.files)
    other.tensors[2][:] = 3
    before = mappings(source.files)
    region.users, region.ended = 2, True
    for left in (0, BUFFERS):
        reader.leave(region)
        reader.let_go(NOBODY)
        assert mappings(source.files) == before - left
    assert (reader.tensors[2][stays.first_row : stays.first_row + ROWS] == 3).all()


def mappings(files: Sequence[int]) -> int:
    """How often this process maps one of these files."""
    inodes = {os.fstat(file).st_ino for file in files}
    return sum(int(line.split()[4]) in inodes for line in Path("/proc/self/maps").read_text().splitlines())


def test_no_row_of_a_server_that_was_let_go_is_left_in_the_table(lent: Lend, reader: ReadMemory) -> None:
    sources = [lent(), lent()]
    gone, there = (reader.map(source.pool, source.files) for source in sources)
    table = torch.zeros(100, 3, dtype=torch.int32)
    table[99] = torch.tensor([gone.first_row, there.first_row, 5])
    table[0, 0] = gone.first_row + ROWS - 1
    gone.ended = True
    reader.let_go(table)
    assert table[99].tolist() == [0, there.first_row, 5]
    assert table[0].tolist() == [0, 0, 0]


def test_a_pool_of_another_shape_is_refused(lent: Lend, reader: ReadMemory) -> None:
    other = lent(tail=(2, 16))
    with pytest.raises(EngineError, match="it has 4 buffers with rows of 128 bytes"):
        reader.map(other.pool, other.files)


@pytest.mark.parametrize("tokens", [1, PAGE, PAGE + 3])
def test_pages_are_copied_to_own_rows_in_every_buffer(lent: Lend, reader: ReadMemory, tokens: int) -> None:
    source = lent()
    region = reader.map(source.pool, source.files)
    for number, tensor in enumerate(source.tensors):
        tensor[:] = torch.arange(ROWS).view(ROWS, 1, 1) + 100 * number
    pages = [1, 0][: -(-tokens // PAGE)]
    first_rows = [region.first_row + PAGE * page for page in pages]
    reader.copy(first_rows, [0, PAGE][: len(pages)], tokens, PAGE, SimpleNamespace())
    for number, tensor in enumerate(reader.tensors):
        expected = [PAGE * page + row + 100 * number for page in pages for row in range(PAGE)][:tokens]
        assert tensor[:tokens, 0, 0].tolist() == expected
        assert not tensor[tokens : reader.layout.own_rows].any()


def test_nothing_is_copied_where_no_page_is_unfinished(reader: ReadMemory) -> None:
    assert reader.copy([], [], 0, PAGE, SimpleNamespace()) is None


# A GPU's memory alone.


def test_memory_of_a_server_that_ended_is_free_once_its_last_reader_ends(gpu: Gpu) -> None:
    theirs, spaces = FakeDeviceSpace(gpu), [FakeDeviceSpace(gpu), FakeDeviceSpace(gpu)]
    source = LentMemory(theirs, ROWS, TAIL, torch.float32, BUFFERS)
    readers = [ReadMemory(space, ROWS, TAIL, torch.float32, BUFFERS, PAGE) for space in spaces]
    own = gpu.used - BUFFERS * STEP
    regions = [reader.map(source.pool, source.files) for reader in readers]
    for file in source.files:
        os.close(file)
    theirs.driver.end()
    assert gpu.used == own + BUFFERS * STEP
    for region in regions:
        region.ended = True
    readers[0].let_go(NOBODY)
    assert gpu.used == own + BUFFERS * STEP
    readers[1].let_go(NOBODY)
    assert gpu.used == own


def test_the_gpu_has_nothing_left_to_do_before_memory_is_let_go(gpu: Gpu) -> None:
    space = FakeDeviceSpace(gpu)
    reader = ReadMemory(space, ROWS, TAIL, torch.float32, BUFFERS, PAGE)
    source = LentMemory(FakeDeviceSpace(gpu), ROWS, TAIL, torch.float32, BUFFERS)
    region = reader.map(source.pool, source.files)
    reader.let_go(NOBODY)
    assert space.settled == 0
    region.ended = True
    reader.let_go(NOBODY)
    reader.let_go(NOBODY)
    assert space.settled == 1


def test_addresses_stay_whatever_is_mapped(gpu: Gpu) -> None:
    reader = ReadMemory(FakeDeviceSpace(gpu), ROWS, TAIL, torch.float32, BUFFERS, PAGE)
    before = [tensor.data_ptr() for tensor in reader.tensors]
    for _ in range(3):
        source = LentMemory(FakeDeviceSpace(gpu), ROWS, TAIL, torch.float32, BUFFERS)
        reader.map(source.pool, source.files).ended = True
        reader.let_go(NOBODY)
    assert [tensor.data_ptr() for tensor in reader.tensors] == before


def test_a_server_that_cannot_be_mapped_whole_is_not_mapped_at_all(gpu: Gpu) -> None:
    space = FakeDeviceSpace(gpu)
    reader = ReadMemory(space, ROWS, TAIL, torch.float32, BUFFERS, PAGE)
    source = LentMemory(FakeDeviceSpace(gpu), ROWS, TAIL, torch.float32, BUFFERS)
    own = len(space.driver.mapped)
    with pytest.raises(EngineError, match="cuMemImportFromShareableHandle"):
        reader.map(source.pool, [*source.files[:-1], 0])
    assert len(space.driver.mapped) == own
    assert reader.map(source.pool, source.files).place == 0


def test_memory_that_is_there_for_no_more_is_refused_by_name() -> None:
    with pytest.raises(EngineError, match="no memory left for KV"):
        LentMemory(FakeDeviceSpace(Gpu((BUFFERS - 1) * STEP)), ROWS, TAIL, torch.float32, BUFFERS)


def test_places_are_as_many_as_attention_counts_rows(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    space = FakeDeviceSpace(gpu)
    rows = STEP // 64
    monkeypatch.setattr(space, "most_elements", 16 * 4 * rows)
    assert ReadMemory(space, rows, TAIL, torch.float32, 2, PAGE, lent_rows=rows).layout.places == 3
    with pytest.raises(EngineError, match=f"kernels count {4 * rows} at most"):
        ReadMemory(space, rows, TAIL, torch.float32, 2, PAGE, lent_rows=4 * rows)
