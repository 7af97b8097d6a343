"""Which sessions begin with the same text: what radix caches and routing policies see of their prompts.

A text is a number, the same for the same text after the same text. No string is hashed for one, for Python does that
differently in every process.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from psserve.bench.session import Session
from psserve.bench.simulator.pool import Context

BLOCK_BITS = 20
"""Of a block's name: its place in the prompt. The others are the text's number."""


@dataclass(frozen=True, slots=True)
class Text:
    """All text of a session, as the caches of one namespace know it."""

    context: Context
    own: int
    """Number of what no other session has."""
    shared_blocks: tuple[int, ...]
    """Names of the router's blocks that other sessions may begin with, too."""
    block_tokens: int

    def blocks(self, tokens: int) -> tuple[int, ...]:
        """Names of the whole blocks of a prompt of so many tokens."""
        count, shared = tokens // self.block_tokens, self.shared_blocks
        return shared[:count] + tuple((self.own << BLOCK_BITS) + place for place in range(len(shared), count))


class Texts:
    """Knows the texts of all sessions so far."""

    def __init__(self, page_size: int, block_tokens: int) -> None:
        self._page = page_size
        self._block_tokens = block_tokens
        self._numbers: dict[Hashable, int] = {}
        self._last = 0

    def of(self, session: Session, namespace: str) -> Text:
        """The text of a session that begins now. Texts of two namespaces are never the same."""
        runs: list[tuple[int, int]] = []
        blocks: list[int] = []
        number, end = self._number(namespace), 0
        for part, tokens in _shared_parts(session):
            number = self._number((number, part))
            pages = (end + tokens) // self._page - end // self._page
            end += tokens
            if pages:
                runs.append((number, pages))
            blocks += ((number << BLOCK_BITS) + place for place in range(len(blocks), end // self._block_tokens))
        self._last += 1
        return Text(Context(tuple(runs), self._last), self._last, tuple(blocks), self._block_tokens)

    def _number(self, key: Hashable) -> int:
        number = self._numbers.get(key)
        if number is None:
            self._last += 1
            number = self._numbers[key] = self._last
        return number


def _shared_parts(session: Session) -> Iterator[tuple[Hashable, int]]:
    """Name and tokens of what others may begin with: the system prompt, and whole blocks of a trace."""
    if session.system_tokens:
        yield session.system, session.system_tokens
    first = session.steps[0]
    for block in first.blocks[: first.new_tokens // first.block_tokens]:
        yield block, first.block_tokens
