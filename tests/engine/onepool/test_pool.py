"""A prefill server that is started again waits for the memory of the one before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from sglang.srt.runtime_context import get_schedule  # noqa: E402

from psserve.engine.onepool import pool  # noqa: E402
from tests.engine.handover.decode_server import sglang_configured  # noqa: E402

WANTED = 1_000


class Gpu:
    """Of which ever more is free: what SGLang would make of it, each time it looks."""

    def __init__(self, *tokens: int) -> None:
        self._tokens = [*tokens]
        self.looks = 0

    def config(self, configurator: Any, before: int) -> Any:
        self.looks += 1
        tokens = self._tokens.pop(0) if len(self._tokens) > 1 else self._tokens[0]
        if not tokens:
            raise ValueError("Loaded weights leave no GPU memory for the KV cache")
        return SimpleNamespace(max_total_num_tokens=tokens)


def made(gpu: Gpu, monkeypatch: pytest.MonkeyPatch, device: str = "cuda", page: int = 1) -> int:
    """The size of the pool."""
    monkeypatch.setattr(pool, "_LOOK_EVERY_S", 0.0)
    configurator = SimpleNamespace(device=device, page_size=page)
    with sglang_configured(), get_schedule().override(max_total_tokens=WANTED):
        tokens: int = pool._wait_for_memory(gpu.config, configurator, 80).max_total_num_tokens
    return tokens


def test_a_pool_is_made_once_there_is_memory_for_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(0, 400, WANTED - 1, WANTED)
    assert (made(gpu, monkeypatch), gpu.looks) == (WANTED, 4)


def test_whole_pages_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(960)
    assert (made(gpu, monkeypatch, page=64), gpu.looks) == (960, 1)


def test_after_a_while_sglang_makes_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_LOOKS", 3)
    gpu = Gpu(400)
    assert (made(gpu, monkeypatch), gpu.looks) == (400, 4)
    with pytest.raises(ValueError, match="no GPU memory"):
        made(Gpu(0), monkeypatch)


def test_on_cpu_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert made(Gpu(400, WANTED), monkeypatch, device="cpu") == 400
