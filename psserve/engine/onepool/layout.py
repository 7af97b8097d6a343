"""Where KV is, as arithmetic: rows of a prefill server's memory, and of a decode server's buffers.

A row is what one layer holds of one token, its keys or its values. A decode server's buffer is one stretch of rows:

    [ its own rows | place 0 | place 1 | ... ]

SGLang's allocator knows the own rows alone. A place takes all rows of one prefill server, so its slot s is the row
`first_row(place) + s` here. Places are addresses and no memory until a server's memory is mapped there.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

from psserve.contracts.one_pool import LARGEST_POOL, MOST_SOURCES, places, round_up, row_step
from psserve.errors import EngineError

OS_PAGE = mmap.PAGESIZE


@dataclass(frozen=True)
class Pool:
    """A prefill server's KV: `buffers` one after the other, each of `rows` of `row_bytes`."""

    generation: str
    """Of this one life of the server: one that starts again has other memory."""
    rows: int
    row_bytes: int
    buffers: int
    step: int = OS_PAGE
    """Bytes that are mapped as one."""

    @property
    def span(self) -> int:
        """Bytes from one buffer to the next."""
        return round_up(self.rows * self.row_bytes, self.step)


@dataclass(frozen=True)
class Layout:
    """The rows of each of a decode server's buffers."""

    own_rows: int
    row_bytes: int
    buffers: int
    step: int = OS_PAGE
    place_rows: int = LARGEST_POOL
    places: int = MOST_SOURCES

    @classmethod
    def of(
        cls,
        rows: int,
        row_bytes: int,
        buffers: int,
        page_size: int,
        *,
        step: int = OS_PAGE,
        lent_rows: int = LARGEST_POOL,
        most_rows: int | None = None,
    ) -> Layout:
        """A layout with at least `rows` own ones, in whole pages of KV and whole steps of memory, as all else.

        `lent_rows`: of the largest prefill server. `most_rows`: own ones and those of all places; None: no limit.

        Raises:
            EngineError: there is no room for a single prefill server.
        """
        whole = row_step(row_bytes, page_size, step)
        own, lent = round_up(rows, whole), round_up(lent_rows, whole)
        count = MOST_SOURCES if most_rows is None else places(own, lent, most_rows)
        if count < 1:
            raise EngineError(
                f"KV of {lent_rows} tokens cannot be read in place beside {rows} of this server's own: kernels count "
                f"{most_rows} at most; use smaller pools, or --transfer nixl"
            )
        return cls(own, row_bytes, buffers, step, lent, count)

    @property
    def rows(self) -> int:
        """All rows, those of the places too."""
        return self.first_row(self.places)

    def first_row(self, place: int) -> int:
        """Where a place begins."""
        return self.own_rows + place * self.place_rows

    def why_not(self, pool: Pool) -> str | None:
        """Why a prefill server's KV cannot be read here; None if it can."""
        if (pool.row_bytes, pool.buffers) != (self.row_bytes, self.buffers):
            return (
                f"it has {pool.buffers} buffers with rows of {pool.row_bytes} bytes, and this server has "
                f"{self.buffers} with rows of {self.row_bytes}"
            )
        if pool.step != self.step:
            return f"its memory is mapped in steps of {pool.step} bytes, and this server's in steps of {self.step}"
        if pool.rows > self.place_rows:
            return f"it has {pool.rows} rows, and there is room for {self.place_rows}"
        return None
