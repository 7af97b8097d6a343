"""The loss of cache-conditioned fine-tuning: one base pass and one module pass for all turns of a conversation.

An answer is the token range [a, b). As it is served, the base computes the KV of positions 0 .. a-2, and the module
reads positions a-1 .. b-2 over it and predicts a .. b-1. With two answers in a conversation, the module's queries see

                     base KV at position                    module KV at position
                 0 .. a-2   a-1 .. b-2   b-1 .. c-2  |  a-1 .. b-2    c-1 .. d-2
    a-1 .. b-2   all        -            -           |  causal        -
    c-1 .. d-2   all        all          all         |  -             causal

The base is causal: its KV of a position is the same whatever follows, so one pass over the whole conversation gives
every turn the cache that a prefill of that turn's prompt would have given. The second answer sees the first one
through the *base's* KV, as it will when the next request's prompt contains it. docs/training.md says more.
"""

from __future__ import annotations

from typing import Any

import torch

from psserve.training.batch import IGNORED, Batch
from psserve.training.hf import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    PreTrainedModel,
    sdpa_attention_forward,
    sdpa_mask,
)
from psserve.training.windows import masks, window_of

OVER_BASE_KV = "psserve_over_base_kv"
"""The attention implementation that a module must be loaded with to be trained."""

BaseKV = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys (rotated) and values of each layer, each [batch, kv heads, tokens, head dim]."""


def attend_over_base_kv(
    layer: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    base_kv: BaseKV | None = None,
    own_kv: bool = True,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """PyTorch's SDPA with the base's keys and values before the layer's own; without `base_kv`, plain SDPA.

    Without `own_kv` the base's are all that there is to see.

    They come as an argument and not as a cache object because Transformers drops caches under gradient checkpointing,
    and because an argument is never written to, so that a layer can be computed twice.
    """
    if base_kv is not None:
        base_key, base_value = base_kv[int(layer.layer_idx)]  # type: ignore[arg-type]
        key = torch.cat([base_key.to(key.dtype), *([key] if own_kv else [])], dim=2)
        value = torch.cat([base_value.to(value.dtype), *([value] if own_kv else [])], dim=2)
    attended: torch.Tensor = sdpa_attention_forward(layer, query, key, value, attention_mask, **options)[0]
    return attended, None


AttentionInterface.register(OVER_BASE_KV, attend_over_base_kv)
AttentionMaskInterface.register(OVER_BASE_KV, sdpa_mask)  # used where no mask of ours is given


def cache_logits(base: PreTrainedModel, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The module's logits [B, Q, vocab] for a `cache_batch`. Gradients flow into the module alone.

    `module` must have been loaded with the attention implementation OVER_BASE_KV (it may be wrapped: PEFT, FSDP, DDP).
    """
    tokens, positions = batch["context_ids"].shape[1], batch["positions"]
    context = torch.arange(tokens, device=positions.device).expand(len(positions), tokens)
    seen = visible(batch["context_lengths"], positions, tokens)
    mask = masks(seen, positions, torch.cat([context, positions], dim=1), window_of(base))
    logits: torch.Tensor = module(
        input_ids=batch["query_ids"],
        position_ids=positions,
        attention_mask=mask,
        base_kv=prefill_contexts(base, batch["context_ids"]),
        use_cache=False,
    ).logits
    return logits


@torch.no_grad()
def prefill_contexts(base: PreTrainedModel, context_ids: torch.Tensor) -> BaseKV:
    """The base's KV of contexts [B, T]. Padding on the right needs no mask: attention is causal."""
    cache = DynamicCache()
    base.base_model(context_ids, past_key_values=cache, use_cache=True)  # without the output layer: no logits
    return [(layer.keys, layer.values) for layer in cache.layers]


def visible(context_lengths: torch.Tensor, positions: torch.Tensor, tokens: int) -> torch.Tensor:
    """Which keys each query sees, [B, Q, T + Q]: `tokens` (T) of base KV, then the module's own.

    Padding sees padding, because a query that sees nothing has no softmax.
    """
    base = torch.arange(tokens, device=positions.device) < context_lengths[:, :, None]
    same_turn = context_lengths[:, :, None] == context_lengths[:, None, :]
    before = positions[:, None, :] <= positions[:, :, None]
    return torch.cat([base, same_turn & before], dim=2)


def full_logits(module: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The module's logits [B, T, vocab] for a `full_batch`: the module prefills for itself."""
    logits: torch.Tensor = module(input_ids=batch["query_ids"], use_cache=False).logits
    return logits


def answer_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The sum of the cross-entropies (nats) of the answer tokens, in float32."""
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
