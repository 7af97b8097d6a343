"""Prefill and decode servers on cores of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from psserve.bench.systems.cores import check_cores, halves, keep_to_cores
from psserve.bench.systems.counters import Server
from psserve.bench.systems.system import SystemSpec, Target
from psserve.errors import UsageError
from tests.fleet.planning import CPU, TWO_GPUS

CORES = sorted(os.sched_getaffinity(0))
TWO_THREADS = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
print(flush=True)
input()
"""
needs_two_cores = pytest.mark.skipif(len(CORES) < 2, reason="there is one core")


@contextlib.contextmanager
def servers(*kinds: bool) -> Iterator[Target]:
    """A process of two threads for each; True: it prefills."""
    command = [sys.executable, "-c", TWO_THREADS]
    with contextlib.ExitStack() as stack:
        found = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)) for _ in kinds
        ]
        for process in found:
            stack.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()  # its threads are there
        told = tuple(Server(str(number), "", prefills=kind) for number, kind in enumerate(kinds))
        yield Target(urls={}, servers=told, pids={str(number): process.pid for number, process in enumerate(found)})


def cores_of(target: Target, name: str) -> list[Sequence[int]]:
    """Of each thread."""
    threads = Path(f"/proc/{target.pids[name]}/task").iterdir()
    return [sorted(os.sched_getaffinity(int(thread.name))) for thread in threads]


@needs_two_cores
def test_each_kind_has_half_of_the_cores_with_all_of_its_threads() -> None:
    prefill, decode = halves(CORES)
    with servers(True, False) as target:
        keep_to_cores(target)
        assert cores_of(target, "0") == [prefill, prefill]
        assert cores_of(target, "1") == [decode, decode]


def test_servers_that_do_both_keep_all() -> None:
    with servers(True, True) as target:
        keep_to_cores(target)
        assert cores_of(target, "0") == cores_of(target, "1") == [CORES, CORES]


def test_no_core_is_lost_or_given_twice() -> None:
    assert halves([0, 1, 2, 5, 7]) == ([0, 1], [2, 5, 7])


def spec() -> SystemSpec:
    return SystemSpec(zoo=Path(), modules=("math",), kv_tokens=64, cores_by_role=True)


def test_gpus_are_not_dealt_out_so() -> None:
    with pytest.raises(UsageError, match="--cores-by-role is of servers on a CPU"):
        check_cores(spec(), TWO_GPUS)
    check_cores(replace(spec(), cores_by_role=False), TWO_GPUS)


def test_threads_are_refused_where_nothing_computes_on_a_cpu() -> None:
    threads = replace(spec(), cores_by_role=False, threads=2)
    with pytest.raises(UsageError, match="--threads is of servers on a CPU"):
        check_cores(threads, TWO_GPUS)
    check_cores(threads, CPU)


def test_one_core_cannot_be_dealt_out() -> None:
    with pytest.raises(UsageError, match="one core"):
        check_cores(spec(), replace(CPU, cores=1))


def test_servers_have_threads_for_their_part() -> None:
    machine = replace(CPU, cores=8)
    assert spec().server_env("cpu", machine, 1) == {"OMP_NUM_THREADS": "4"}
    assert spec().server_env("cpu", machine, 1, does_both=True) == {"OMP_NUM_THREADS": "8"}
    assert spec().server_env("cpu", machine, 8) == {"OMP_NUM_THREADS": "1"}
