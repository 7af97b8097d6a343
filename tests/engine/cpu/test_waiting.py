"""How often a scheduler looks whether KV has come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist

from psserve.engine.cpu import waiting
from psserve.engine.cpu.waiting import Wait


def test_pauses_grow_with_the_wait_up_to_a_bound() -> None:
    wait = Wait()
    assert [wait.pause_s(7, now) for now in (10.0, 10.001, 10.04, 12.0)] == pytest.approx(
        [0.0005, 0.0005, 0.002, 0.005]
    )


def test_work_in_between_begins_a_new_wait() -> None:
    wait = Wait()
    wait.pause_s(7, 10.0)
    assert wait.pause_s(7, 20.0) > wait.pause_s(8, 20.0) == 0.0005


@pytest.mark.parametrize("fully_idle", [True, False])
def test_a_scheduler_pauses_only_while_transfers_are_in_flight(
    fully_idle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(waiting, "_WAIT", Wait())
    monkeypatch.setattr(waiting.time, "sleep", slept.append)
    pause, _ = waiting.hooks()
    assert pause.function(None, SimpleNamespace(is_fully_idle=lambda: fully_idle, forward_ct=3)) is None
    assert slept == ([] if fully_idle else [0.0005])


@pytest.mark.parametrize(("processes", "async_op", "reduced"), [(1, False, False), (1, True, True), (2, False, True)])
def test_only_over_several_processes_there_is_something_to_reduce(
    processes: int, async_op: bool, reduced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "get_world_size", lambda group: processes)
    calls: list[Any] = []
    _, reduce = waiting.hooks()
    reduce.function(lambda *given, **named: calls.append((given, named)), "tensor", "sum", "group", async_op)
    assert calls == ([(("tensor",), {"op": "sum", "group": "group", "async_op": async_op})] if reduced else [])


def test_a_reduction_without_an_operation_keeps_pytorchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "get_world_size", lambda group: 2)
    calls: list[Any] = []
    _, reduce = waiting.hooks()
    reduce.function(lambda *given, **named: calls.append((given, named)), "tensor")
    assert calls == [(("tensor",), {"group": None, "async_op": False})]
