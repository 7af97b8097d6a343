"""Where KV is, as arithmetic: rows of a prefill server's file, and of a decode server's buffers.

A row is what one layer holds of one token, its keys or its values. A decode server's buffer is one stretch of rows:

    [ its own rows | place 0 | place 1 | ... ]

SGLang's allocator knows the own rows alone. A place takes all rows of one prefill server, so its slot s is the row
`first_row(place) + s` here. Places are addresses and no memory until a server's file is mapped there.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass

from psserve.contracts.one_pool import LARGEST_POOL, MOST_SOURCES

OS_PAGE = mmap.PAGESIZE


def round_up(number: int, step: int) -> int:
    """The first multiple of `step` that is not less than `number`."""
    return -(-number // step) * step


@dataclass(frozen=True)
class Pool:
    """A prefill server's KV in its file: `buffers` one after the other, each of `rows` of `row_bytes`."""

    generation: str
    """Of this one life of the server: one that starts again has other memory."""
    rows: int
    row_bytes: int
    buffers: int

    @property
    def span(self) -> int:
        """Bytes from one buffer to the next."""
        return round_up(self.rows * self.row_bytes, OS_PAGE)

    @property
    def file_bytes(self) -> int:
        return self.span * self.buffers


@dataclass(frozen=True)
class Layout:
    """The rows of each of a decode server's buffers."""

    own_rows: int
    row_bytes: int
    buffers: int

    @classmethod
    def of(cls, rows: int, row_bytes: int, buffers: int, page_size: int) -> Layout:
        """A layout with at least `rows` own ones, after which pages of KV and of the operating system both begin."""
        step = math.lcm(page_size, OS_PAGE // math.gcd(OS_PAGE, row_bytes))
        return cls(round_up(rows, step), row_bytes, buffers)

    @property
    def rows(self) -> int:
        """All rows, those of the places too."""
        return self.first_row(MOST_SOURCES)

    def first_row(self, place: int) -> int:
        """Where a place begins."""
        return self.own_rows + place * LARGEST_POOL

    def why_not(self, pool: Pool) -> str | None:
        """Why a prefill server's KV cannot be read here; None if it can."""
        if (pool.row_bytes, pool.buffers) != (self.row_bytes, self.buffers):
            return (
                f"it has {pool.buffers} buffers with rows of {pool.row_bytes} bytes, and this server has "
                f"{self.buffers} with rows of {self.row_bytes}"
            )
        if pool.rows > LARGEST_POOL:
            return f"it has {pool.rows} rows, and there is room for {LARGEST_POOL}"
        return None
