from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import psutil

from psserve.fleet.run.memory import family, main_memory, of_family, parse_gpu_memory


def test_memory_of_a_family() -> None:
    own = family(os.getpid())
    assert psutil.Process() in own
    assert (main_memory(own) or 0) > 1_000_000
    assert main_memory([]) is None


def test_memory_on_gpus_is_summed_by_process() -> None:
    listing = "100, 1024\n100, 512\n101, [N/A]\n\nno such device\n"
    assert parse_gpu_memory(listing) == {100: 1536 * 1024 * 1024}


def test_gpu_memory_is_that_of_our_processes_alone() -> None:
    table = parse_gpu_memory("12, 1000\n13, 500\n99, 7\n14, [N/A]\n")
    ours: list[Any] = [SimpleNamespace(pid=pid) for pid in (12, 13, 14)]
    assert of_family(ours, table) == 1_500 * 2**20
    assert of_family(ours[:1], {99: 7}) is None
