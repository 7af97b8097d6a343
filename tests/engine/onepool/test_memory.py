"""A decode server sees what a prefill server writes, cannot write there itself, and goes on reading when it is gone."""

from __future__ import annotations

import gc
import mmap
import os
import subprocess
import sys

import pytest
import torch

from psserve.contracts.one_pool import MOST_SOURCES
from psserve.engine.onepool.memory import LentMemory, ReadMemory
from psserve.errors import EngineError

TAIL = (2, 8)
ROWS, BUFFERS, PAGE = 40, 4, 16


def lent(rows: int = ROWS, tail: tuple[int, ...] = TAIL) -> LentMemory:
    return LentMemory(rows, tail, torch.float32, BUFFERS)


def read() -> ReadMemory:
    return ReadMemory(ROWS, TAIL, torch.float32, BUFFERS, PAGE)


def test_what_is_lent_is_read_in_place() -> None:
    source, reader = lent(), read()
    region = reader.map(source.pool, source.file)
    for number, (theirs, ours) in enumerate(zip(source.tensors, reader.tensors, strict=True)):
        theirs[:] = torch.arange(ROWS).view(ROWS, 1, 1) + 100 * number
        assert torch.equal(ours[region.first_row : region.first_row + ROWS], theirs)


def test_own_rows_are_zero_at_first_and_nobody_elses() -> None:
    source, reader = lent(), read()
    reader.map(source.pool, source.file)
    own = reader.layout.own_rows
    for tensor in reader.tensors:
        assert not tensor[:own].any()
        tensor[:own] = 1
    assert not any(tensor.any() for tensor in source.tensors)


def test_two_servers_have_rows_of_their_own() -> None:
    reader = read()
    first, second = lent(), lent(rows=20)
    at_first, at_second = reader.map(first.pool, first.file), reader.map(second.pool, second.file)
    first.tensors[1][:], second.tensors[1][:] = 1, 2
    assert (reader.tensors[1][at_first.first_row : at_first.first_row + ROWS] == 1).all()
    assert (reader.tensors[1][at_second.first_row : at_second.first_row + 20] == 2).all()
    assert first.pool.generation != second.pool.generation


def test_what_is_mapped_outlives_its_file() -> None:
    source, reader = lent(), read()
    source.tensors[0][:] = 7
    region = reader.map(source.pool, source.file)
    os.close(source.file)
    del source
    gc.collect()
    assert (reader.tensors[0][region.first_row : region.first_row + ROWS] == 7).all()


def test_writing_into_what_is_lent_ends_the_writer() -> None:
    code = """
import torch
from psserve.engine.onepool.memory import LentMemory, ReadMemory
source = LentMemory(40, (2, 8), torch.float32, 4)
reader = ReadMemory(40, (2, 8), torch.float32, 4, 16)
region = reader.map(source.pool, source.file)
print("reads", float(reader.tensors[0][region.first_row].sum()), flush=True)
reader.tensors[0][region.first_row] = 1
print("wrote")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == "reads 0.0\n", ended.stderr
    assert ended.returncode < 0


def test_the_file_cannot_be_mapped_for_writing() -> None:
    with pytest.raises(PermissionError):
        mmap.mmap(lent().file, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def test_the_place_of_a_server_that_is_gone_is_used_again_once_nobody_reads_there() -> None:
    reader = read()
    sources = [lent() for _ in range(MOST_SOURCES + 1)]
    regions = [reader.map(source.pool, source.file) for source in sources[:-1]]
    regions[2].ended, regions[2].users = True, 1
    with pytest.raises(EngineError, match=f"the KV of {MOST_SOURCES} prefill servers is read here already"):
        reader.map(sources[-1].pool, sources[-1].file)
    regions[2].users = 0
    sources[-1].tensors[3][:] = 5
    again = reader.map(sources[-1].pool, sources[-1].file)
    assert again.first_row == regions[2].first_row
    assert (reader.tensors[3][again.first_row : again.first_row + ROWS] == 5).all()


def test_what_a_server_that_is_gone_lent_is_unmapped_behind_its_last_reader() -> None:
    reader, source, other = read(), lent(), lent()
    region, stays = reader.map(source.pool, source.file), reader.map(other.pool, other.file)
    other.tensors[2][:] = 3
    before = mappings(source.file)
    region.users, region.ended = 2, True
    reader.leave(region)
    assert mappings(source.file) == before
    reader.leave(region)
    assert mappings(source.file) == before - BUFFERS
    assert not reader.tensors[2][region.first_row].any()
    assert (reader.tensors[2][stays.first_row : stays.first_row + ROWS] == 3).all()


def mappings(file: int) -> int:
    """How often this process maps a file."""
    inode = os.fstat(file).st_ino
    return sum(int(line.split()[4]) == inode for line in open("/proc/self/maps").read().splitlines())


def test_a_pool_of_another_shape_is_refused() -> None:
    other = lent(tail=(2, 16))
    with pytest.raises(EngineError, match="it has 4 buffers with rows of 128 bytes"):
        read().map(other.pool, other.file)
