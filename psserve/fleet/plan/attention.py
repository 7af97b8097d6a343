"""Which attention kernels a base's heads need on which card, where SGLang's own choice cannot take them.

| card | SGLang 0.5.17 to 0.5.23 choose | it takes heads of |
|---|---|---|
| sm_90 (Hopper) | fa3 | multiples of 8, up to 256 |
| sm_100, sm_103 (Blackwell for data centres) | trtllm_mha | 64, 128, 256 |
| every other | flashinfer | 64, 128, 256 |

All of them compute in half precision alone. Triton's kernels take any head and any dtype.

Sources: `ServerArgs._get_default_attn_backend` (sglang/srt/server_args.py); flashinfer 0.6.17,
include/flashinfer/utils.cuh (`DISPATCH_HEAD_DIM`) and attention/prefill.cuh (`NUM_MMA_D_QK` must be a multiple of 4, so
heads multiples of 64); FlashAttention 3, hopper/flash_api.cpp (heads a multiple of 8, at most 256; bf16 and fp16);
TensorRT-LLM's kernels are precompiled for those sizes.
"""

from __future__ import annotations

TRITON = "triton"
_HOPPER = 9
_LARGEST_HEAD = 256
_HEADS = (64, 128, 256)


def attention_backend(head_dim: int, dtype: str, capability: tuple[int, int] | None) -> str | None:
    """What `--attention-backend` must say for heads of this size; None: SGLang's own choice will do.

    Of a card of unknown `capability` nothing is hoped for.
    """
    if dtype == "float32":
        return TRITON
    if capability is not None and capability[0] == _HOPPER:
        return None if head_dim % 8 == 0 and head_dim <= _LARGEST_HEAD else TRITON
    return None if head_dim in _HEADS else TRITON
