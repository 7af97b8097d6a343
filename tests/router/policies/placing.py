"""Requests for policies, made short."""

from __future__ import annotations

from collections.abc import Sequence

from psserve.router.policies import Prompt, Request
from psserve.router.policies.base import TOKEN_BYTES, blocks_of, token_bytes

BLOCK = 4  # tokens
SERVERS = ("a", "b", "c")


def request(tokens: Sequence[int], session: str = "s", output: int = 0) -> Request:
    blocks = blocks_of(token_bytes(tokens), BLOCK * TOKEN_BYTES)
    return Request(Prompt(blocks, len(tokens), BLOCK), session, output)


def text(start: int, count: int) -> list[int]:
    """`count` tokens that no other `start` shares."""
    return [start * 100_000 + index for index in range(count)]
