"""What every routing policy is given, answers and keeps count of.

Policies know no HTTP, no clock and no event loop: the router and a simulator drive the same ones. Servers are names.
Prompts are cut into blocks with chained names:

    name[0] = hash(root, bytes of block 0)      name[i] = hash(name[i-1], bytes of block i)

Equal names therefore mean equal prompts up to the block's end. Names are Python's own hashes of 64 bits, keyed anew in
each process: nobody can construct two prompts that collide, and they are worth nothing outside the process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

ChoiceOutcome = Literal["hit", "balanced", "new", "affinity", "overloaded", "picked"]
"""Why a server was chosen, as a metric's label has it.

hit: no server holds more of the prompt; balanced: one does, but is too busy; new: none holds any of it;
affinity: the session's own server; overloaded: that one had too much to do; picked: by a policy that looks at neither.
"""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as policies see it: cut into blocks, each named by a hash of itself and all that comes before it."""

    blocks: tuple[int, ...]
    """Two prompts begin alike as far as these are equal. A last block that is not full has no name."""
    tokens: int
    """Tokens of the whole prompt; an estimate where the prompt is text."""
    block_tokens: float
    """Tokens of one block."""

    def tokens_of(self, blocks: int) -> int:
        """Tokens of the first `blocks` blocks."""
        return min(self.tokens, round(blocks * self.block_tokens))


@dataclass(frozen=True, slots=True)
class Request:
    """One sequence to place."""

    prompt: Prompt
    session: str
    """Name of the conversation that it belongs to; equal names should meet the same decode server."""
    output_tokens: int = 0
    """Of its answer, as far as policies reckon with it."""
    unlimited_tokens: int | None = None
    """What the context leaves for an answer that the client set no limit to. None: there is one, `output_tokens`."""

    @property
    def most_output_tokens(self) -> int:
        """At most so many will be generated."""
        return self.output_tokens if self.unlimited_tokens is None else self.unlimited_tokens

    @property
    def tokens(self) -> int:
        """KV that it takes up, in tokens."""
        return self.prompt.tokens + self.output_tokens


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A server for one request. Give it back to the policy, once, when the server is done with the request."""

    request: Request
    server: str
    outcome: ChoiceOutcome
    tokens: int
    """Work that it puts on the server until it is given back."""
    matched: int = 0
    """Leading blocks of the prompt that the server was thought to hold."""


class Policy(ABC):
    """Picks servers, and keeps count of the work that each has outstanding and of whose turn it is."""

    name: ClassVar[str]

    def __init__(self) -> None:
        self._outstanding: dict[str, int] = {}
        self._last_turn: dict[str, int] = {}
        self._turns = 0

    def choose(self, request: Request, servers: Sequence[str]) -> Choice:
        """One of `servers` (at least one, no name twice), which has the request to do from now on."""
        choice = self._pick(request, servers)
        self._turns += 1
        self._last_turn[choice.server] = self._turns
        self._outstanding[choice.server] = self.outstanding(choice.server) + choice.tokens
        return choice

    def finish(self, choice: Choice, *, served: bool) -> None:
        """The server is done with the request; not `served`: it may not even have begun."""
        left = self.outstanding(choice.server) - choice.tokens
        if left > 0:
            self._outstanding[choice.server] = left
        else:
            self._outstanding.pop(choice.server, None)

    def forget(self, server: str) -> None:
        """`server` was restarted or is gone: whatever it held is lost. What it has outstanding is still given back."""
        self._last_turn.pop(server, None)

    def outstanding(self, server: str) -> int:
        """Tokens of work that `server` has not finished."""
        return self._outstanding.get(server, 0)

    def last_turn(self, server: str) -> int:
        """Grows with every choice: the server that waits longest has the smallest. 0: was never chosen."""
        return self._last_turn.get(server, 0)

    @abstractmethod
    def _pick(self, request: Request, servers: Sequence[str]) -> Choice:
        """The choice, before it is counted."""


def rotated(servers: Sequence[str], first: int) -> list[str]:
    """The servers from the one with this number on. Among equals a policy takes the first."""
    start = first % len(servers)
    return [*servers[start:], *servers[:start]]


TOKEN_BYTES = 4


def root_of(namespace: Iterable[str | None]) -> int:
    """What the first block is chained to: prompts of different namespaces share nothing."""
    parts = tuple(namespace)
    return hash(parts) if any(parts) else 0


def chain(parent: int, block: bytes) -> int:
    """The name of `block` after the block named `parent`."""
    return hash((parent, block))


def blocks_of(data: bytes, block_bytes: int, root: int = 0) -> tuple[int, ...]:
    """Names of the whole blocks of `data`."""
    name = root
    starts = range(0, len(data) - block_bytes + 1, block_bytes)
    return tuple([name := chain(name, data[start : start + block_bytes]) for start in starts])


def token_bytes(tokens: Sequence[int]) -> bytes:
    """Token ids as bytes, TOKEN_BYTES each."""
    return array("I", tokens).tobytes()
