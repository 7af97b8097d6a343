"""A request that the HTTP process forgets ends in the scheduler, and uses its adapter no more."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from sglang.srt.lora.lora_registry import LoRARef, LoRARegistry  # noqa: E402

from psserve.engine.fixes import disconnect  # noqa: E402


class Manager:
    """Of the HTTP process: requests under way, each with its adapter's id, if it has one."""

    def __init__(self, **adapters: str | None) -> None:
        self.told: list[str] = []
        self.abort_request = self.told.append
        self.lora_registry = LoRARegistry([LoRARef(lora_id="x", lora_name="math@1", lora_path="/x")])
        self.rid_to_state: Any = {
            rid: SimpleNamespace(obj=SimpleNamespace(lora_id=adapter)) for rid, adapter in adapters.items()
        }

    def forget(self, rid: str | list[str] | None) -> None:
        (hook,) = disconnect.hooks()
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
