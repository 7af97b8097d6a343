"""What a server's cache holds, as far as one can tell from the prompts it was sent."""

from __future__ import annotations

from typing import Protocol

from psserve.router.policies.base import Choice, Prompt
from psserve.router.policies.recent import RecentBlocks

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
