"""SGLang on any CPU: an out-of-tree platform that uses PyTorch's own operators.

SGLang's own CPU platform needs AMX kernels that are not on the package index. This one needs PyTorch alone. It is for
laptops, tests and small models, and stands aside where there is a CUDA device.
"""

from __future__ import annotations

import torch
from sglang.srt.platforms.cpu import CpuDeviceMixin
from sglang.srt.platforms.device_mixin import PlatformEnum
from sglang.srt.platforms.interface import SRTPlatform


def activate() -> str | None:
    """Entry point of the group `sglang.srt.platforms`: this platform's class path, or None where CUDA is there."""
    if torch.cuda.is_available():
        return None
    return "psserve.engine.cpu.platform.TorchCpuPlatform"


class TorchCpuPlatform(CpuDeviceMixin, SRTPlatform):  # type: ignore[misc]
    """CPU through PyTorch: SDPA attention over SGLang's own KV pools, no custom kernels."""

    _enum = PlatformEnum.OOT

    def get_default_attention_backend(self) -> str:
        return "torch_native"

    if not hasattr(SRTPlatform, "get_kv_pool_cls"):  # SGLang before 0.5.22 has no class of its own choice

        def get_mha_kv_pool_cls(self) -> type:
            from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool

            return MHATokenToKVPool  # type: ignore[no-any-return]

    def get_paged_allocator_cls(self) -> type:
        from psserve.engine.cpu.allocator import allocator_class

        return allocator_class  # type: ignore[return-value]

    def get_compile_backend(self, mode: str | None = None) -> str:
        return "eager"  # inductor would compile SGLang's sampling helpers at their first use, for seconds
