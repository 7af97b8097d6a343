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
    words = _WORD.findall(_NUMBER.sub("0", text.lower()))
    found = words + [f"{first} {second}" for first, second in pairwise(words)]
    for word in words:
        if word[0].isalpha():
            padded = f" {word} "
            found += [f"[{padded[i : i + RUN]}]" for i in range(max(1, len(padded) - RUN + 1))]
    return found
