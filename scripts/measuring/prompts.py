"""Random prompts: by token ids, and as chat messages of a wanted length."""

from __future__ import annotations

import random
from pathlib import Path

WORDS = "the a sum of apples city function number file weather seven red green answer list count step left word small"


def random_ids(rng: random.Random, count: int, vocab_size: int) -> list[int]:
    """`count` token ids, none of the first few, which tokenizers use for special tokens."""
    return [rng.randrange(16, vocab_size) for _ in range(count)]


class ChatPrompts:
    """Chat requests of one user message whose prompts have about the same length, and nothing else, in common.

    `template_tokens` is what the chat template adds around the message.
    """

    def __init__(self, tokenizer_json: Path, rng: random.Random, template_tokens: int = 0) -> None:
        from tokenizers import Tokenizer  # type: ignore[import-untyped]

        self._tokenizer = Tokenizer.from_file(str(tokenizer_json))
        self._rng = rng
        self.template_tokens = template_tokens

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def message(self, tokens: int) -> str:
        """A text that makes a prompt of `tokens` tokens, or of very few less."""
        words: list[str] = []
        wanted = tokens - self.template_tokens
        while self.count(" ".join(words)) < wanted:
            words.append(self._rng.choice((*WORDS.split(), str(self._rng.randrange(10_000)))))
        text = " ".join(words)
        while self.count(text) > wanted:
            text = text[:-1]
        return text
