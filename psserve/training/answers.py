"""Greedy answers to the prompts of conversations, computed here by the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch

from psserve.errors import DataError
from psserve.training.batched_reference import generate_batch
from psserve.training.conversation import Conversation
from psserve.training.hf import AutoTokenizer, PreTrainedModel
from psserve.training.reference import ModelPair, in_format, load_pair
from psserve.training.tokenization import prompt_ids
from psserve.zoo import Zoo

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Answerer(Protocol):
    """Whatever answers prompts: the reference, or a running fleet."""

    def answer(self, items: Sequence[Conversation], max_tokens: int) -> list[str]:
        """One text an item, in reply to all of its messages but the last."""
        ...


Generate = Callable[..., list[list[int]]]
"""(base, module, prompts as token ids, longest answer, stop_ids=...) -> the answers' token ids."""


@dataclass(frozen=True)
class ReferenceAnswerer:
    """The reference in batches. `generate` is `generate_batch`, or answers by another rule."""

    pair: ModelPair
    tokenizer: PreTrainedTokenizerBase
    stop_ids: frozenset[int]
    context_length: int
    batch_size: int = 64
    generate: Generate = generate_batch

    def answer(self, items: Sequence[Conversation], max_tokens: int) -> list[str]:
        """See Answerer. DataError for a prompt that leaves no room for `max_tokens`."""
        prompts = [self._prompt(item, max_tokens) for item in items]
        by_length = sorted(range(len(items)), key=lambda index: len(prompts[index]))  # little padding
        texts = [""] * len(items)
        for start in range(0, len(items), self.batch_size):
            batch = by_length[start : start + self.batch_size]
            asked = [prompts[index] for index in batch]
            answers = self.generate(*self.pair, asked, max_tokens, stop_ids=self.stop_ids)
            for index, answer in zip(batch, answers, strict=True):
                texts[index] = str(self.tokenizer.decode(answer, skip_special_tokens=True))
        return texts

    def _prompt(self, item: Conversation, max_tokens: int) -> list[int]:
        ids = prompt_ids(item, self.tokenizer)
        if len(ids) + max_tokens > self.context_length:
            raise DataError(
                f"{item.where}: {len(ids)} tokens of prompt and {max_tokens} of answer are more than the context of "
                f"{self.context_length}: lower --max-tokens, or leave the item out"
            )
        return ids


def zoo_answerer(zoo: Zoo, module_name: str, *, batch_size: int = 64) -> ReferenceAnswerer:
    """The reference for a module of a zoo (or the base, by its name), in the number format of a fleet."""
    return pair_answerer(zoo, load_pair(zoo, module_name), batch_size=batch_size)


def pair_answerer(
    zoo: Zoo, pair: ModelPair, *, batch_size: int = 64, base_share: float = 1.0, generate: Generate | None = None
) -> ReferenceAnswerer:
    """The reference for any two models of the zoo's architecture: float32 on CPU, bfloat16 on a GPU.

    `base_share` as in `generate_batch`; `generate` answers in its place.
    """
    tokenizer = AutoTokenizer.from_pretrained(zoo.base.path, local_files_only=True)
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    stops = {*end_tokens(pair.module), tokenizer.eos_token_id} - {None}
    return ReferenceAnswerer(
        ModelPair(*(in_format(model, dtype).to(device) for model in pair)),
        tokenizer,
        frozenset(stops),
        zoo.base.context_length,
        batch_size,
        generate or partial(generate_batch, base_share=base_share),
    )


def end_tokens(model: PreTrainedModel) -> set[int]:
    """The tokens that its checkpoint says end an answer, in either configuration: those that a server takes."""
    found: set[int] = set()
    for config in (model.config, model.generation_config):
        tokens = config.eos_token_id
        found |= set() if tokens is None else {tokens} if isinstance(tokens, int) else set(tokens)
    return found
