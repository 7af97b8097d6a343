"""KV memory that processes of one device map: a prefill server writes it, decode servers read it in place.

A prefill server's memory lives as long as somebody maps it, and is never given to another: not even the server's end
changes what its readers read. They let go of it once the last of their requests that reads there has ended.
Where the memory is, a `Space` knows: `host_memory` or `device_memory`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from psserve.contracts.one_pool import LARGEST_POOL
from psserve.engine.handover.sglang.one_pool import PoolScheduler
from psserve.engine.onepool.layout import Layout, Pool
from psserve.errors import EngineError


class Done(Protocol):
    """Tells whether what was asked of a GPU is done."""

    def query(self) -> bool:
        """Whether it is."""


class Space(Protocol):
    """Memory of one kind. What is mapped begins and ends at multiples of `step` bytes."""

    step: int
    most_elements: int | None
    """Of a decode server's buffer; None: no limit."""

    def lend(self, span: int, count: int) -> tuple[list[int], list[int]]:
        """Make `count` pieces of `span` bytes, all zero, that others may read.

        Returns their addresses, and the files that name them.
        """

    def reserve(self, size: int) -> int:
        """Take addresses, for good, and no memory."""

    def fill(self, address: int, size: int) -> None:
        """Put memory of this process's own at reserved addresses, all zero."""

    def attach(self, address: int, span: int, files: Sequence[int], number: int) -> None:
        """Put a lender's piece `number` at reserved addresses, for reading alone."""

    def detach(self, address: int, span: int) -> None:
        """Take it away again. Nothing that still runs may read there."""

    def tensor(self, address: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return a tensor over memory that stays for the life of the process. Its beginning must be mapped."""

    def settle(self) -> None:
        """Wait for all that this process asked of the device."""

    def behind_forwards(self, scheduler: PoolScheduler) -> AbstractContextManager[Any]:
        """Within it, work begins after the forwards that the scheduler has launched, and is done before the next."""

    def done(self) -> Done | None:
        """What tells, from within `behind_forwards`, when the work so far is done; None: it is."""


class LentMemory:
    """A prefill server's buffers, of which others may read every row."""

    def __init__(self, space: Space, rows: int, tail: tuple[int, ...], dtype: torch.dtype, buffers: int) -> None:
        """Allocate `buffers` of [rows, *tail], all zero. Raises EngineError if there is no memory for them."""
        self.pool = Pool(os.urandom(8).hex(), rows, math.prod(tail) * dtype.itemsize, buffers, space.step)
        starts, self.files = space.lend(self.pool.span, buffers)
        """For readers."""
        self.tensors = [space.tensor(start, (rows, *tail), dtype) for start in starts]


@dataclass(eq=False)
class Region:
    """A prefill server's rows in a decode server's buffers."""

    place: int
    first_row: int
    span: int
    """Bytes in each buffer."""
    users: int = 0
    """Requests that read there, or are about to."""
    ended: bool = False
    """Its server is gone: nobody new will read there."""


class ReadMemory:
    """A decode server's buffers: its own rows, and those of every prefill server that it was told of."""

    def __init__(
        self,
        space: Space,
        rows: int,
        tail: tuple[int, ...],
        dtype: torch.dtype,
        buffers: int,
        page_size: int,
        lent_rows: int = LARGEST_POOL,
    ) -> None:
        """Allocate `buffers` of [at least `rows`, *tail], own rows all zero. `lent_rows`: a prefill server's, at most.

        Raises:
            EngineError: there is no memory for them, or no room for any prefill server's rows.
        """
        elements = math.prod(tail)
        self.layout = Layout.of(
            rows,
            elements * dtype.itemsize,
            buffers,
            page_size,
            step=space.step,
            lent_rows=lent_rows,
            most_rows=None if space.most_elements is None else space.most_elements // elements,
        )
        self._space = space
        self._regions: dict[int, Region] = {}
        self._starts: list[int] = []
        self.tensors: list[torch.Tensor] = []
        for _ in range(buffers):
            start = space.reserve(self.layout.rows * self.layout.row_bytes)
            space.fill(start, self.layout.own_rows * self.layout.row_bytes)
            self._starts.append(start)
            self.tensors.append(space.tensor(start, (self.layout.rows, *tail), dtype))

    def map(self, pool: Pool, files: Sequence[int]) -> Region:
        """Map a prefill server's rows for reading. Raises EngineError if they do not fit or no place is free."""
        if reason := self.layout.why_not(pool):
            raise EngineError(f"the KV of a prefill server cannot be read in place: {reason}")
        place = self._free_place()
        region = Region(place, self.layout.first_row(place), pool.span)
        attached = []
        try:
            for number, address in enumerate(self._addresses(region)):
                self._space.attach(address, region.span, files, number)
                attached.append(address)
        except EngineError:
            for address in attached:
                self._space.detach(address, region.span)
            raise
        self._regions[place] = region
        return region

    def leave(self, region: Region) -> None:
        """One request less reads there, or was about to."""
        region.users -= 1

    def let_go(self, table: torch.Tensor) -> None:
        """Unmap the rows of servers that are gone and that no request reads: their memory ends with the last reader.

        `table`: the scheduler's [requests, tokens] of rows. What requests left in it that have ended is overwritten, so
        that no kernel that looks further than its request goes finds an address without memory.
        """
        unread = [region for region in self._regions.values() if region.ended and not region.users]
        if not unread:
            return
        for region in unread:
            end = region.first_row + self.layout.place_rows
            for start in range(0, len(table), _ROWS_AT_ONCE):
                rows = table[start : start + _ROWS_AT_ONCE]
                rows.masked_fill_((rows >= region.first_row) & (rows < end), 0)
        self._space.settle()
        for region in unread:
            del self._regions[region.place]
            for address in self._addresses(region):
                self._space.detach(address, region.span)

    def copy(
        self, sources: Sequence[int], targets: Sequence[int], tokens: int, page_size: int, scheduler: PoolScheduler
    ) -> Done | None:
        """Copy `tokens` rows of every buffer, in pages that are named by their first rows.

        Returns what tells when that is done; None: it is.
        """
        pieces = [
            (source, target, min(page_size, tokens - place * page_size))
            for place, (source, target) in enumerate(zip(sources, targets, strict=True))
        ]
        if not pieces:
            return None
        with self._space.behind_forwards(scheduler):
            torch._foreach_copy_(
                [buffer[target : target + count] for buffer in self.tensors for _, target, count in pieces],
                [buffer[source : source + count] for buffer in self.tensors for source, _, count in pieces],
            )
            return self._space.done()

    def _addresses(self, region: Region) -> list[int]:
        return [start + region.first_row * self.layout.row_bytes for start in self._starts]

    def _free_place(self) -> int:
        free = (place for place in range(self.layout.places) if place not in self._regions)
        if (place := next(free, None)) is None:
            raise EngineError(
                f"the KV of {self.layout.places} prefill servers is read here already, and there is one more"
            )
        return place


_ROWS_AT_ONCE = 64
"""Of the table, so that what marks them takes little memory."""
