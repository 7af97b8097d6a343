"""What a server's cache holds, as far as one can tell from the prompts it was sent."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from psserve.router.policies.base import Choice, Prompt

MAX_BLOCKS = 2**18
"""Of one server's index, about 30 MB: whatever the size of its cache, the router's memory is bounded."""


class Holdings(Protocol):
    """Knows which leading blocks of a prompt a server holds or is about to hold."""

    def match(self, server: str, prompt: Prompt) -> int:
        """How many leading blocks of `prompt`."""

    def assigned(self, choice: Choice) -> None:
        """The chosen server will hold the whole prompt."""

    def finished(self, choice: Choice, served: bool) -> None:
        """It holds the prompt now; not `served`: perhaps not."""

    def forget(self, server: str) -> None:
        """The server holds nothing."""


class BlockLru:
    """Names of blocks, the least recently used dropped first.

    A prompt's blocks are used last to first, so that, as in a radix tree, a block outlives those that build on it.
    """

    def __init__(self) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def match(self, blocks: Sequence[int]) -> int:
        """How many leading ones of `blocks` are in it. Every server is asked for every request: a plain loop."""
        held = self._blocks
        for count, block in enumerate(blocks):
            if block not in held:
                return count
        return len(blocks)

    def use(self, blocks: Sequence[int], limit: int) -> None:
        """Put `blocks` in, then drop until at most `limit` are left."""
        for block in reversed(blocks):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > limit:
            self._blocks.popitem(last=False)

    def remove(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            self._blocks.pop(block, None)


class PredictedHoldings:
    """Each server holds the prompts it was sent last, as many as its KV pool can (`capacity` tokens)."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._servers: dict[str, BlockLru] = {}

    def match(self, server: str, prompt: Prompt) -> int:
        lru = self._servers.get(server)
        return lru.match(prompt.blocks) if lru else 0

    def assigned(self, choice: Choice) -> None:
        prompt = choice.request.prompt
        limit = min(MAX_BLOCKS, int(self._capacity / prompt.block_tokens))
        self._servers.setdefault(choice.server, BlockLru()).use(prompt.blocks, limit)

    def finished(self, choice: Choice, served: bool) -> None:
        """What it was not known to hold before is in doubt after a failure."""
        if not served and (lru := self._servers.get(choice.server)) is not None:
            lru.remove(choice.request.prompt.blocks[choice.matched :])

    def forget(self, server: str) -> None:
        self._servers.pop(server, None)
