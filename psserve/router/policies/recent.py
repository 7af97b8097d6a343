"""Blocks of prompts and something known of each, the least recently used dropped first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, TypeVar

Value = TypeVar("Value")

PART = 2**13
"""Blocks of one part. An OrderedDict that grows copies itself, and the router waits: 40 ms if all 2**18 were in one."""


class RecentBlocks(Generic[Value]):
    """Block -> value, in parts by the block's hash, each with its own order and its share of what may be kept.

    A prompt's blocks are used last to first, so that, as in a radix tree, a block outlives those that build on it. With
    several parts that holds as nearly as the parts are equally full.
    """

    def __init__(self, most: int) -> None:
        """`most`: how many blocks it will be trimmed to at most."""
        self._parts: tuple[OrderedDict[int, Value], ...] = tuple(OrderedDict() for _ in range(1 + most // PART))

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def leading(self, blocks: Sequence[int]) -> int:
        """How many leading ones of `blocks` are in it. Every server is asked for every request: a plain loop."""
        parts, count = self._parts, len(self._parts)
        for index, block in enumerate(blocks):
            if block not in parts[block % count]:
                return index
        return len(blocks)

    def values(self, blocks: Sequence[int]) -> list[Value | None]:
        """What is known of each block; None: nothing."""
        parts, count = self._parts, len(self._parts)
        return [parts[block % count].get(block) for block in blocks]

    def use(self, blocks: Sequence[int], value: Value, old: int = 0) -> None:
        """All are used now. Of the first `old` ones what is known stays known, the others get `value`."""
        parts, count = self._parts, len(self._parts)
        for index in range(len(blocks) - 1, -1, -1):
            block = blocks[index]
            part = parts[block % count]
            if index >= old:
                part[block] = value
            if block in part:
                part.move_to_end(block)

    def trim(self, limit: int) -> None:
        """Drop until at most `limit` are left."""
        share = limit // len(self._parts)
        for part in self._parts:
            while len(part) > share:
                part.popitem(last=False)

    def remove(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            self._parts[block % len(self._parts)].pop(block, None)
