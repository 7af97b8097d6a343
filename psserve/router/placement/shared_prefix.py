"""Whose prefill a cached prefix came from: the prefix tokens that one module reuses of another's.

A prefill server says how many leading tokens of a prompt it had cached, not for whom it had computed them. That is
remembered here: for each server, block of prompt -> module whose request made the server compute it. The blocks are
those that routing has cut already (see prompt_key.py and token_keys.py).

How exact it is: the server's own count decides how much was cached, so an answer is never above that count. Blocks of
token ids are whole tokens. Blocks of text are laid over the tokens evenly, which can move the border between two
modules' parts by the unevenness of the text; where the cached prefix came from other modules altogether, or from the
module itself, the count is exact all the same. Prompts of less than one block (64 bytes), prefixes older than the
MAX_OWNED_BLOCKS blocks last used of a server, and those from before the router's start count as nobody's: it errs
downwards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from psserve.router.policies import Prompt
from psserve.router.policies.index import RecentBlocks

MAX_OWNED_BLOCKS = 2**17
"""Most blocks that are remembered of one server: some 15 MB."""


class PrefixOwners:
    """The modules that had each block of a prompt computed, on each prefill server."""

    def __init__(self, max_blocks: int = MAX_OWNED_BLOCKS) -> None:
        self._max_blocks = max_blocks
        self._servers: defaultdict[str, RecentBlocks[str]] = defaultdict(lambda: RecentBlocks(max_blocks))

    def computed(self, server: str, module: str, prompt: Prompt, prompt_tokens: int, cached_tokens: int) -> int:
        """`server` has read `prompt_tokens` tokens of `prompt` for `module`, of which it had `cached_tokens`.

        Returns how many of the cached ones were computed for other modules.
        """
        owners = self._servers[server]
        cached = _cached_blocks(prompt, prompt_tokens, cached_tokens)
        known = owners.values(prompt.blocks[:cached])
        owners.use(prompt.blocks, module, old=cached)  # cached ones stay whose they are, or nobody's
        owners.trim(self._max_blocks)
        return _tokens_of_others(known, module, cached_tokens)

    def retain(self, servers: Sequence[str]) -> None:
        """Forget all servers but these. One that only restarted need not be forgotten: it has nothing cached."""
        for gone in self._servers.keys() - set(servers):
            del self._servers[gone]


def _cached_blocks(prompt: Prompt, prompt_tokens: int, cached_tokens: int) -> int:
    """How many leading blocks of `prompt` the cached tokens are, to the nearest."""
    if not prompt.blocks or prompt_tokens < 1:
        return 0
    blocks = prompt.tokens / prompt.block_tokens  # of the whole prompt, a part at its end included
    return min(len(prompt.blocks), round(blocks * cached_tokens / prompt_tokens))


def _tokens_of_others(owners: Sequence[str | None], module: str, cached_tokens: int) -> int:
    """`cached_tokens` shared out evenly to the blocks; the part of those whose owner is known, and not `module`."""
    others = sum(owner is not None and owner != module for owner in owners)
    return round(cached_tokens * others / len(owners)) if owners else 0
