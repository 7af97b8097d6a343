"""What a server's cache holds, as far as one can tell from the prompts it was sent."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from math import log2
from typing import Generic, Protocol, TypeVar

from psserve.router.policies.base import Choice, Prompt

Value = TypeVar("Value")
MAX_BLOCKS = 2**18
"""Most blocks of one server's index, about 30 MB: whatever the size of its cache, the router's memory is bounded."""
PART = 2**12
"""Blocks of one part. An OrderedDict that grows copies itself, and the router waits: 40 ms if all 2**18 were in one."""
SLOTS = 4093
"""Blocks spread over them evenly, and each belongs to a part. A prime: with a power of two, a part's blocks would all
end in the same bits, and by these a dict finds its keys."""


class Holdings(Protocol):
    """Knows which leading blocks of a prompt a server holds or is about to hold."""

    def match(self, server: str, prompt: Prompt) -> int:
        """How many leading blocks of `prompt`."""

    def assigned(self, choice: Choice) -> None:
        """The chosen server will hold the whole prompt."""

    def finished(self, choice: Choice, served: bool) -> None:
        """The server holds the prompt now; not `served`: perhaps not."""

    def forget(self, server: str) -> None:
        """The server holds nothing."""


class PredictedHoldings:
    """Each server holds the prompts it was sent last, as many as its KV pool can (`capacity` tokens)."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._servers: dict[str, RecentBlocks[None]] = {}

    def match(self, server: str, prompt: Prompt) -> int:
        held = self._servers.get(server)
        return 0 if held is None else held.leading(prompt.blocks)

    def assigned(self, choice: Choice) -> None:
        prompt = choice.request.prompt
        limit = min(MAX_BLOCKS, int(self._capacity / prompt.block_tokens))
        held = self._servers.get(choice.server)
        if held is None:
            held = self._servers[choice.server] = RecentBlocks(limit)
        held.use(prompt.blocks, None)
        held.trim(limit)

    def finished(self, choice: Choice, served: bool) -> None:
        """What it was not known to hold before is in doubt after a failure."""
        if not served and (held := self._servers.get(choice.server)) is not None:
            held.remove(choice.request.prompt.blocks[choice.matched :])

    def forget(self, server: str) -> None:
        self._servers.pop(server, None)


class RecentBlocks(Generic[Value]):
    """Block -> value, in parts by the block's hash, each with its own order and its share of what may be kept.

    Shares grow from part to part, the last one's being twice the first one's: parts alike would all grow at once.

    A prompt's blocks are used last to first, so that, as in a radix tree, a block outlives those that build on it. With
    several parts that holds as nearly as the parts are equally full.
    """

    def __init__(self, most: int) -> None:
        """`most`: how many blocks it will be trimmed to at most."""
        count = 1 + most // PART
        numbers = [int(count * log2(1 + slot / SLOTS)) for slot in range(SLOTS)]
        slots = Counter(numbers)
        parts: list[OrderedDict[int, Value]] = [OrderedDict() for _ in range(count)]
        self._parts = [(part, slots[number] / SLOTS) for number, part in enumerate(parts)]
        self._part_of = tuple(parts[number] for number in numbers)

    def __len__(self) -> int:
        return sum(len(part) for part, _ in self._parts)

    def leading(self, blocks: Sequence[int]) -> int:
        """How many leading ones of `blocks` are in it. Every server is asked for every request: a plain loop."""
        part_of = self._part_of
        for index, block in enumerate(blocks):
            if block not in part_of[block % SLOTS]:
                return index
        return len(blocks)

    def values(self, blocks: Sequence[int]) -> list[Value | None]:
        """What is known of each block; None: nothing."""
        part_of = self._part_of
        return [part_of[block % SLOTS].get(block) for block in blocks]

    def use(self, blocks: Sequence[int], value: Value, old: int = 0) -> None:
        """All are used now. Of the first `old` ones what is known stays known, the others get `value`."""
        part_of = self._part_of
        for block in reversed(blocks[old:]):
            part = part_of[block % SLOTS]
            part[block] = value
            part.move_to_end(block)
        for block in reversed(blocks[:old]):
            if block in (part := part_of[block % SLOTS]):
                part.move_to_end(block)

    def trim(self, limit: int) -> None:
        """Drop until at most `limit` are left."""
        for part, share in self._parts:
            while len(part) > share * limit:
                part.popitem(last=False)

    def remove(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            self._part_of[block % SLOTS].pop(block, None)
