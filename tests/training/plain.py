"""The loss by definition: one prefill by the base and one pass of the module for each turn of each conversation.

By ICaRus' rule, one of each for each token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from psserve.training.batch import Tokenized
from psserve.training.reference import as_batch, prefill


def plain_loss(base: PreTrainedModel, module: PreTrainedModel, conversations: Sequence[Tokenized]) -> torch.Tensor:
    """The mean cross-entropy of all answer tokens, with gradients into the module."""
    losses = [
        turn_loss(base, module, list(each.input_ids[:end]), start)
        for each in conversations
        for start, end in each.answers
    ]
    return torch.cat(losses).mean()


def turn_loss(base: PreTrainedModel, module: PreTrainedModel, ids: list[int], start: int) -> torch.Tensor:
    """The cross-entropy of each token of the answer ids[start:]."""
    with torch.no_grad():
        cache = prefill(base, ids[: start - 1])
    logits = module(as_batch(module, ids[start - 1 : -1]), past_key_values=cache, use_cache=True).logits[0]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[start:]), reduction="none")


class BaseAlone(DynamicCache):
    """The base's cache as a module sees it that reads the newest token: what it would write is dropped."""

    def __init__(self, base: DynamicCache) -> None:
        super().__init__()
        self.base = base

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        layer = self.base.layers[layer_idx]
        return layer.keys, layer.values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return int(self.base.get_seq_length()) - 1

    def get_mask_sizes(self, *_: Any) -> tuple[int, int]:
        return int(self.base.get_seq_length()), 0


def plain_icarus_logits(base: PreTrainedModel, module: PreTrainedModel, ids: Sequence[int]) -> torch.Tensor:
    """The module's logits [vocab] after `ids`, in plain Transformers."""
    with torch.no_grad():
        cache = prefill(base, ids)
    last = torch.tensor([[len(ids) - 1]])
    logits: torch.Tensor = module(
        as_batch(module, ids[-1:]), past_key_values=BaseAlone(cache), position_ids=last
    ).logits
    return logits[0, -1]


def plain_icarus_loss(base: PreTrainedModel, module: PreTrainedModel, batch: Sequence[Tokenized]) -> torch.Tensor:
    """The mean cross-entropy of all answer tokens, each from a pass of its own."""
    losses = [
        torch.nn.functional.cross_entropy(
            plain_icarus_logits(base, module, list(each.input_ids[:position])), torch.tensor(each.input_ids[position])
        )
        for each in batch
        for start, end in each.answers
        for position in range(start, end)
    ]
    return torch.stack(losses).mean()
