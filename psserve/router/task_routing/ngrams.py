"""The features of a text: its words, its pairs of words, and the runs of four characters in its words."""

from __future__ import annotations

import re
from itertools import pairwise

RUN = 4
"""Characters. Longer and shorter runs as well made the demo zoo's and CLINC's figures no better, and cost three times
as much (docs/task-routing.md)."""
_NUMBER = re.compile(r"\d+")
_WORD = re.compile(r"\w+|[^\w\s]")


def ngrams(text: str) -> list[str]:
    """The features of `text`, repeated as often as they occur, in order of kind and place.

    Case is ignored, and every number is the same number. `"To be"` has `to`, `be`, `to be`, `[ to ]`, `[ be ]`.
    """
    words = words_of(text)
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    return words + pairs + [run for word in words for run in runs_of(word)]


def words_of(text: str) -> list[str]:
    """Words and punctuation marks in order."""
    return _WORD.findall(_NUMBER.sub("0", text.lower()))


def runs_of(word: str) -> list[str]:
    """The runs in a word with a space on both sides; numbers and punctuation have none."""
    if not word[0].isalpha():
        return []
    padded = f" {word} "
    return [f"[{padded[i : i + RUN]}]" for i in range(max(1, len(padded) - RUN + 1))]
