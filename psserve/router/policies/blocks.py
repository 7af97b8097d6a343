"""Cutting prompts into blocks with chained names.

    name[0] = hash(root, bytes of block 0)      name[i] = hash(name[i-1], bytes of block i)

Equal names therefore mean equal prompts up to the block's end. Names are Python's own hashes of 64 bits, keyed anew in
each process: nobody can construct two prompts that collide, and they are worth nothing outside the process.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

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
