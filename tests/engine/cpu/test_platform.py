"""SGLang finds psserve's platform where there is no GPU, and takes its parts from it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool  # noqa: E402

from psserve.engine.cpu import attention, platform  # noqa: E402
from psserve.engine.cpu.allocator import TorchPagedAllocator  # noqa: E402


@pytest.mark.parametrize(("cuda", "path"), [(False, "psserve.engine.cpu.platform.TorchCpuPlatform"), (True, None)])
def test_it_stands_aside_where_there_is_a_gpu(cuda: bool, path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert platform.activate() == path


def test_attention_is_what_psserve_hooks() -> None:
    from sglang.srt.layers.attention.attention_registry import ATTENTION_BACKENDS

    name = platform.TorchCpuPlatform().get_default_attention_backend()
    assert name in ATTENTION_BACKENDS
    assert all(f".{name}_backend." in hook.target for hook in attention.hooks())


def pool_class(own: platform.TorchCpuPlatform) -> Any:
    """What SGLang makes the KV pool of: its own class, which older releases want to be told."""
    if hasattr(own, "get_kv_pool_cls"):
        assert own.get_kv_pool_cls(kind="mha") is None
        return MHATokenToKVPool
    assert own.get_mha_kv_pool_cls() is MHATokenToKVPool
    return MHATokenToKVPool


def test_pools_and_allocators_are_made_on_a_cpu() -> None:
    own = platform.TorchCpuPlatform()
    pool = pool_class(own)(8, 4, torch.float32, 1, 1, 1, "cpu", enable_memory_saver=False)
    allocator = own.get_paged_allocator_cls()(
        8, page_size=4, dtype=torch.float32, device="cpu", kvcache=pool, need_sort=False
    )
    assert isinstance(allocator, TorchPagedAllocator)
    assert pool.k_buffer[0].device.type == "cpu"


def test_nothing_is_compiled_at_first_use() -> None:
    compiled = torch.compile(lambda tensor: tensor + 1, backend=platform.TorchCpuPlatform().get_compile_backend())
    assert compiled(torch.zeros(1)).tolist() == [1.0]
    assert platform.TorchCpuPlatform().get_compile_backend() == "eager"
