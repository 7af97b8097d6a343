"""A conversation as training sees it: token ids, and which of them are answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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
