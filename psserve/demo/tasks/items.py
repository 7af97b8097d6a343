"""Seeded, deduplicated items of a task, split into training and test by the hash of what is asked.

The split needs no list of items: a question belongs to the test set if its hash says so, whatever seed made it. Hence
no seed can put a test item into a training file or into the base's corpus. What a module is trained and tested on is
split by its solution too, so that a held-out item is not a training item in other words.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any, Literal

import orjson

from psserve.training.conversation import Conversation

Split = Literal["train", "test"]
MakeItem = Callable[[random.Random], Conversation]
"""Makes one item: a prompt, and the reference answer as the last message."""

TEST_SHARE = 0.1
"""Share of all questions that are test items, if their solution is one of those kept for them."""
SOLUTION_SHARE = 0.3
"""Share of all solutions that only test items have."""


def content_hash(item: Conversation) -> str:
    """Hash of what is asked: messages but the last, and tools."""
    return blake2b(orjson.dumps([item.prompt, item.tools]), digest_size=16).hexdigest()


def split_of(item: Conversation) -> Split:
    """The set that a question belongs to."""
    return "test" if int(content_hash(item), 16) / 2**128 < TEST_SHARE else "train"


def kept_for_tests(solution: str) -> bool:
    """Whether no module is trained on this solution."""
    digest = blake2b(solution.encode(), digest_size=16).digest()
    return int.from_bytes(digest) / 2**128 < SOLUTION_SHARE


def endless_items(make: MakeItem, split: Split, seed: int) -> Iterator[Conversation]:
    """Endless different items of one set. The same arguments give the same items."""
    rng = random.Random(f"{split} {seed}")
    seen: set[str] = set()
    while True:
        item = make(rng)
        key = content_hash(item)
        if key not in seen and split_of(item) == split:
            seen.add(key)
            yield item


def ask(question: str, answer: str, *, tests: str = "") -> Conversation:
    """An item of one user turn and one assistant turn."""
    messages: tuple[dict[str, Any], ...] = (
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    )
    return Conversation(messages, tests=tests)
