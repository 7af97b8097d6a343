"""The loss by definition: one prefill by the base and one pass of the module for each turn of each conversation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

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
