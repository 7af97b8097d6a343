"""Attention over SGLang's KV pool on a CPU, which costs what is new and not what is cached.

SGLang's `torch_native` backend pads the new tokens' queries to the whole sequence, and then throws the results of the
cached ones away: a prompt of which 90% is cached costs as much attention as one that is new. It also copies keys and
values by advanced indexing, which takes several times as long as `index_select` does. Results are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from psserve.engine.hooks import Hook, Kind

_BACKEND = "sglang.srt.layers.attention.torch_native_backend.TorchNativeAttnBackend"
_BLOCK = 256
"""New tokens that are looked at together. Each sees all before it, so a block computes too much only within itself."""


def _extend(
    original: Callable[..., torch.Tensor],
    backend: Any,
    query: torch.Tensor,
    output: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    req_to_token: torch.Tensor,
    req_pool_indices: torch.Tensor,
    seq_lens: torch.Tensor,
    extend_prefix_lens: torch.Tensor,
    extend_seq_lens: torch.Tensor,
    encoder_lens: torch.Tensor | None = None,
    **options: Any,
) -> torch.Tensor:
    """AROUND `_run_sdpa_forward_extend`: `query`, `output` [new tokens, heads, dim], pools [slots, kv heads, dim]."""
    if not _is_plain(query, keys, encoder_lens, options) or not options["causal"]:
        lengths = (req_pool_indices, seq_lens, extend_prefix_lens, extend_seq_lens)
        return original(backend, query, output, keys, values, req_to_token, *lengths, encoder_lens, **options)
    start = 0
    rows = zip(req_pool_indices.tolist(), extend_prefix_lens.tolist(), extend_seq_lens.tolist(), strict=True)
    for row, prefix, new in rows:
        slots = req_to_token[row, : prefix + new]
        every_key, every_value = _of(keys, slots), _of(values, slots)
        for first in range(0, new, _BLOCK):
            last = min(first + _BLOCK, new)
            seen = prefix + last
            output[start + first : start + last] = _attention(
                query[start + first : start + last],
                every_key[:, :, :seen],
                every_value[:, :, :seen],
                torch.ones(last - first, seen, dtype=torch.bool).tril(seen - (last - first)),
                options,
            )
        start += new
    return output


def _decode(
    original: Callable[..., torch.Tensor],
    backend: Any,
    query: torch.Tensor,
    output: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    req_to_token: torch.Tensor,
    req_pool_indices: torch.Tensor,
    seq_lens: torch.Tensor,
    encoder_lens: torch.Tensor | None = None,
    **options: Any,
) -> torch.Tensor:
    """AROUND `_run_sdpa_forward_decode`: one token of each request; shapes as in `_extend`."""
    if not _is_plain(query, keys, encoder_lens, options):
        lengths = (req_pool_indices, seq_lens)
        return original(backend, query, output, keys, values, req_to_token, *lengths, encoder_lens, **options)
    for place, (row, length) in enumerate(zip(req_pool_indices.tolist(), seq_lens.tolist(), strict=True)):
        slots = req_to_token[row, :length]
        token = slice(place, place + 1)
        output[token] = _attention(query[token], _of(keys, slots), _of(values, slots), None, options)
    return output


def _is_plain(
    query: torch.Tensor, keys: torch.Tensor, encoder_lens: torch.Tensor | None, options: dict[str, Any]
) -> bool:
    """Whether this is what language models do: no encoder, no window, one number format."""
    window = options.get("sliding_window_size")
    return encoder_lens is None and (window is None or window < 0) and query.dtype == keys.dtype


def _of(pool: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """The rows of `pool` at `slots`, as [1, kv heads, tokens, dim]."""
    return pool.index_select(0, slots).movedim(0, 1).unsqueeze(0)


def _attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None, options: dict[str, Any]
) -> torch.Tensor:
    """`query` and the result are [tokens, heads, dim]."""
    result = scaled_dot_product_attention(
        query.movedim(0, 1).unsqueeze(0),
        keys,
        values,
        attn_mask=mask,
        scale=options["scaling"],
        enable_gqa=options["enable_gqa"],
    )
    return result.squeeze(0).movedim(1, 0)


def hooks() -> tuple[Hook, ...]:
    """The hooks that a server on CPU needs whatever its role."""
    return (
        Hook(f"{_BACKEND}._run_sdpa_forward_extend", Kind.AROUND, _extend),
        Hook(f"{_BACKEND}._run_sdpa_forward_decode", Kind.AROUND, _decode),
    )
