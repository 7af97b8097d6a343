"""Main memory that is lent can be read alone."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys

import pytest
import torch

from psserve.engine.onepool.host_memory import HostSpace
from psserve.engine.onepool.memory import LentMemory, ReadMemory


def test_writing_into_what_is_lent_ends_the_writer() -> None:
    code = """
import torch
from psserve.engine.onepool.host_memory import HostSpace
from psserve.engine.onepool.memory import LentMemory, ReadMemory
source = LentMemory(HostSpace(), 40, (2, 8), torch.float32, 4)
reader = ReadMemory(HostSpace(), 40, (2, 8), torch.float32, 4, 16)
region = reader.map(source.pool, source.files)
print("reads", float(reader.tensors[0][region.first_row].sum()), flush=True)
reader.tensors[0][region.first_row] = 1
print("wrote")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == "reads 0.0\n", ended.stderr
    assert ended.returncode < 0


def test_what_was_taken_away_reads_as_zeros() -> None:
    source = LentMemory(HostSpace(), 40, (2, 8), torch.float32, 4)
    reader = ReadMemory(HostSpace(), 40, (2, 8), torch.float32, 4, 16)
    source.tensors[2][:] = 1
    region = reader.map(source.pool, source.files)
    region.ended = True
    reader.let_go(torch.zeros(1, 1, dtype=torch.int32))
    assert not reader.tensors[2][region.first_row : region.first_row + 40].any()


def test_the_file_cannot_be_mapped_for_writing() -> None:
    (file,) = LentMemory(HostSpace(), 40, (2, 8), torch.float32, 4).files
    with pytest.raises(PermissionError):
        mmap.mmap(file, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def test_the_file_cannot_be_opened_anew_to_write_to_it_or_to_cut_it() -> None:
    (file,) = LentMemory(HostSpace(), 40, (2, 8), torch.float32, 4).files
    again = os.open(f"/proc/self/fd/{file}", os.O_RDWR)
    try:
        with pytest.raises(PermissionError):
            mmap.mmap(again, mmap.PAGESIZE)
        with pytest.raises(PermissionError):
            os.write(again, b"x")
        with pytest.raises(PermissionError):
            os.ftruncate(again, 0)
    finally:
        os.close(again)
