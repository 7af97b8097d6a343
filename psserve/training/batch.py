"""Conversations as training sees them: token ids and answers, and these as padded tensors.

There are two kinds of batches: for the loss over the base's KV cache, and for full fine-tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from psserve.rule import base_len


@dataclass(frozen=True)
class Tokenized:
    """Token ids x[0..n-1], and the answers in them as half-open ranges [a, b), in order and without overlap.

    An answer is all that a module must generate in one turn: the assistant's text and the token that ends the turn.
    At least one token precedes each answer (a >= 1), because generation starts from a token. ValueError otherwise.
    """

    input_ids: Sequence[int]
    answers: Sequence[tuple[int, int]]

    def __post_init__(self) -> None:
        if not self.answers:
            raise ValueError("a conversation without an answer has nothing to train on")
        free = 1
        for start, end in self.answers:
            if not free <= start < end <= len(self.input_ids):
                raise ValueError(f"answer [{start}, {end}) is outside [{free}, {len(self.input_ids)}) or empty")
            free = end

    @property
    def answer_tokens(self) -> int:
        """How many tokens are trained on."""
        return sum(end - start for start, end in self.answers)


Batch = dict[str, torch.Tensor]
"""Named tensors of one batch, each [conversations, tokens]."""

IGNORED = -100
"""The label of a position that is not trained on."""
NO_TURN = -1
"""The context length of padding: it belongs to no turn and sees no base KV."""


def cache_batch(conversations: Sequence[Tokenized]) -> Batch:
    """The batch of cache-conditioned training: B conversations, padded on the right.

    context_ids      [B, T]  what the base reads: all that precedes the last answer's queries
    query_ids        [B, Q]  what the module reads: for an answer [a, b), to the prompt [0, a), tokens a-1 .. b-2
    positions        [B, Q]  where these are in the conversation
    context_lengths  [B, Q]  how many tokens of base KV each sees: a-1, which also tells the turns apart
    labels           [B, Q]  the token that follows each
    """
    turns = [[(base_len(a), b - 1) for a, b in each.answers] for each in conversations]
    queries = [[position for turn in each for position in range(*turn)] for each in turns]
    tokens = [each.input_ids for each in conversations]
    # At least one token, because a model cannot read none; no query sees it then.
    contexts = [ids[: max(1, each[-1][0])] for ids, each in zip(tokens, turns, strict=True)]
    return {
        "context_ids": padded(contexts, 0),
        "query_ids": padded([[ids[i] for i in each] for ids, each in zip(tokens, queries, strict=True)], 0),
        "positions": padded(queries, 0),
        "context_lengths": padded(
            [[start for start, end in each for _ in range(start, end)] for each in turns], NO_TURN
        ),
        "labels": padded([[ids[i + 1] for i in each] for ids, each in zip(tokens, queries, strict=True)], IGNORED),
    }


def full_batch(conversations: Sequence[Tokenized]) -> Batch:
    """All tokens that the module reads, `query_ids` [B, T], and as `labels` the next token where it is an answer's."""
    queries, labels = [], []
    for each in conversations:
        length = each.answers[-1][1] - 1
        queries.append(each.input_ids[:length])
        answer = {position for start, end in each.answers for position in range(start, end)}
        labels.append([each.input_ids[i + 1] if i + 1 in answer else IGNORED for i in range(length)])
    return {"query_ids": padded(queries, 0), "labels": padded(labels, IGNORED)}


def padded(rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
    """Rows of ids as one tensor, filled up on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])
