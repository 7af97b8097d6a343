"""Batches of other libraries' collators as conversations: token ids, and labels that say what is trained on.

A run of labels is an answer, up to the token that ends the turn. What is labelled after that is of the chat template: a
server never asks a module for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from psserve.errors import DataError
from psserve.training.batch import IGNORED, Batch, Tokenized, cache_batch

JOINED = ("position_ids", "cu_seq_lens_q", "seq_idx", "seq_lengths")
"""What collators add to rows that hold several conversations."""


@dataclass(frozen=True)
class AnswersOverCache:
    """A collator that cuts the rows of another one into what the base reads and what the module reads.

    `collate` makes of examples a batch with `input_ids` and `labels`; `end` is the token that ends a turn.
    """

    collate: Callable[[Any], Batch]
    end: int

    def __call__(self, examples: Any) -> Batch:
        """The `cache_batch` of the examples; DataError if they cannot be trained on."""
        return cache_batch(labelled_rows(self.collate(examples), self.end))


def labelled_rows(batch: Batch, end: int) -> list[Tokenized]:
    """The conversations of a batch: `input_ids` and `labels` [B, T], and perhaps `attention_mask` [B, T] (0: padding).

    A label is the row's own token, or -100 where it is not trained on. Raises DataError: a row holds several
    conversations, nothing to train on, or nothing before it.
    """
    ids, labels = batch["input_ids"], batch["labels"]
    mask = batch.get("attention_mask", torch.ones_like(ids))
    if mask.shape != ids.shape or any(name in batch for name in JOINED):
        raise DataError(
            "a row holds several conversations (packing, padding_free), and the base's KV of one would hold those "
            "before it: let each have a row of its own"
        )
    return [labelled_row(ids[row][kept].tolist(), labels[row][kept].tolist(), end) for row, kept in enumerate(mask > 0)]


def labelled_row(ids: Sequence[int], labels: Sequence[int], end: int) -> Tokenized:
    """One conversation; DataError."""
    if any(label not in (token, IGNORED) for token, label in zip(ids, labels, strict=True)):
        raise DataError("a label is another token than the row's own: labels say which tokens are trained on")
    answers = [(start, through_end(ids, start, stop, end)) for start, stop in runs(labels)]
    if not answers:
        raise DataError("a row has nothing to train on: leave it out, or allow longer rows (max_length)")
    if answers[0][0] == 0:
        raise DataError(
            "a row is trained on from its first token, so nothing of it is the base's to read: give prompts and "
            "completions, or train on the assistant's turns alone (TRL: assistant_only_loss=True)"
        )
    return Tokenized(ids, answers)


def runs(labels: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The half-open ranges that are trained on."""
    at = 0
    for trained, run in groupby(labels, lambda label: label != IGNORED):
        length = len(list(run))
        if trained:
            yield at, at + length
        at += length


def through_end(ids: Sequence[int], start: int, stop: int, end: int) -> int:
    """Where the answer in [start, stop) stops: after its last end of turn, if it has one (a cut one has none)."""
    return next((at + 1 for at in reversed(range(start, stop)) if ids[at] == end), stop)
