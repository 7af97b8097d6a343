"""Agreements of a scheduler with itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch.distributed as dist

from psserve.engine.cpu import alone


@pytest.mark.parametrize(("processes", "async_op", "reduced"), [(1, False, False), (1, True, True), (2, False, True)])
def test_only_over_several_processes_there_is_something_to_reduce(
    processes: int, async_op: bool, reduced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "get_world_size", lambda group: processes)
    calls: list[Any] = []
    (reduce,) = alone.hooks()
    reduce.function(lambda *given, **named: calls.append((given, named)), "tensor", "sum", "group", async_op)
    assert calls == ([(("tensor",), {"op": "sum", "group": "group", "async_op": async_op})] if reduced else [])


def test_a_reduction_without_an_operation_keeps_pytorchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "get_world_size", lambda group: 2)
    calls: list[Any] = []
    (reduce,) = alone.hooks()
    reduce.function(lambda *given, **named: calls.append((given, named)), "tensor")
    assert calls == [(("tensor",), {"group": None, "async_op": False})]
