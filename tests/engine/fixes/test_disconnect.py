"""A request that the HTTP process forgets ends in the scheduler, and uses its adapter no more."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import HTTPException

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from sglang.srt.lora.lora_registry import LoRARef, LoRARegistry  # noqa: E402
from sglang.srt.managers.tokenizer_manager import TokenizerManager  # noqa: E402

from psserve.engine.fixes import disconnect  # noqa: E402
from tests.engine.release import only  # noqa: E402


class Manager:
    """Of the HTTP process: requests under way, each with its adapter's id, if it has one."""

    enable_lora = True

    def __init__(self, **adapters: str | None) -> None:
        self.told: list[str] = []
        self.abort_request = self.told.append
        self.lora_registry = LoRARegistry([LoRARef(lora_id="x", lora_name="math@1", lora_path="/x")])
        self.rid_to_state: Any = {
            rid: SimpleNamespace(obj=SimpleNamespace(lora_id=adapter)) for rid, adapter in adapters.items()
        }

    def forget(self, rid: str | list[str] | None) -> None:
        hook = disconnect.hooks()[0]
        assert hook.function(self, SimpleNamespace(rid=rid), {"a": object()}) is None

    async def unused(self) -> None:
        await self.lora_registry.unregister("math@1")
        async with asyncio.timeout(30):
            await self.lora_registry.wait_for_unload("x")


@pytest.mark.parametrize(("rid", "aborted"), [("a", ["a"]), (["a", "b"], ["a", "b"]), (None, [])])
def test_every_request_that_is_forgotten_is_aborted(rid: str | list[str] | None, aborted: list[str]) -> None:
    manager = Manager(a=None)
    manager.forget(rid)
    assert manager.told == aborted


async def test_its_adapter_can_be_unloaded() -> None:
    manager = Manager(a="x", b="x")
    await manager.lora_registry.acquire("math@1")
    await manager.lora_registry.acquire("math@1")
    manager.forget("a")
    manager.forget(["b"])
    await manager.unused()


async def test_one_that_had_ended_is_not_counted_out_again() -> None:
    manager = Manager(b="x")
    await manager.lora_registry.acquire("math@1")
    manager.forget("a")  # SGLang counted it out, and so knows it no longer
    manager.forget("b")
    await manager.unused()


async def test_one_that_was_aborted_before_it_ran_is_counted_out() -> None:
    manager = Manager(a="x")
    await manager.lora_registry.acquire("math@1")
    assert disconnect.hooks()[1].function(manager, SimpleNamespace(rid="a")) is None
    await manager.unused()


@only(since="0.5.21", until="0.5.22")
async def test_one_that_was_refused_before_a_scheduler_was_told_is_counted_out() -> None:
    manager: Any = Manager(refused="x", running="x", base=None)
    for rid, state in manager.rid_to_state.items():
        state.dispatched = rid == "running"
    for _ in range(2):
        await manager.lora_registry.acquire("math@1")
    rids = {"refused", "running", "base", "gone"}
    disconnect.hooks()[3].function(manager, rids)
    manager.encoder_dispatch_ready = {}
    TokenizerManager._release_req_states_on_failure(manager, rids)
    assert manager.told == ["running"]
    await manager.lora_registry.release("x")  # as at the end of the one that runs
    await manager.unused()


ORIGINAL = TokenizerManager._handle_abort_finish_reason


def running(rid: str) -> Any:
    """What SGLang keeps of a request for the adapter."""
    return SimpleNamespace(obj=SimpleNamespace(rid=rid, lora_path="math@1", lora_id="x"))


FAILED = {"meta_info": {"finish_reason": {"type": "abort", "status_code": 500, "message": "the transfer failed"}}}


@only(until="0.5.22")
@pytest.mark.parametrize(("is_known", "still_used"), [(False, 1), (True, 0)])
async def test_one_that_failed_is_counted_out_by_whoever_forgets_it(is_known: bool, still_used: int) -> None:
    manager = Manager(**({"a": "x"} if is_known else {}))
    await manager.lora_registry.acquire("math@1")
    with pytest.raises(HTTPException):
        await disconnect.hooks()[2].function(ORIGINAL, manager, FAILED, running("a"), False)
    assert manager.lora_registry._counters["x"].value() == still_used


@only(until="0.5.22")
async def test_sglang_alone_counts_one_that_failed_out_twice() -> None:
    """Or the hook is needless."""
    manager = Manager()
    await manager.lora_registry.acquire("math@1")
    with pytest.raises(HTTPException):
        await ORIGINAL(manager, FAILED, running("a"), False)
    assert manager.lora_registry._counters["x"].value() == 0


@only(since="0.5.22")
async def test_sglang_alone_counts_one_that_failed_out_once() -> None:
    """Or the hooks are needed still."""
    manager: Any = TokenizerManager.__new__(TokenizerManager)
    registry = LoRARegistry([LoRARef(lora_id="x", lora_name="math@1", lora_path="/x")])
    vars(manager).update(enable_lora=True, lora_registry=registry, rid_to_state={}, _lora_release_tasks=set())
    for _ in range(2):  # one of them goes on
        await registry.acquire("math@1")
    state = running("a")
    state.lora_released = False
    for _ in range(2):  # when it was aborted, and when it is asked for its end
        with pytest.raises(HTTPException):
            await manager._handle_abort_finish_reason(FAILED, state, False)
    assert registry._counters["x"].value() == 1
