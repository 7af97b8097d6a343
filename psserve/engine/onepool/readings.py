"""Which requests of a decode server read base KV in place, and how much of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import torch

    from psserve.engine.onepool.reader import Reading


class Readings:
    """What each request reads, from its commit to its end. A retracted request keeps it."""

    def __init__(self) -> None:
        self._slots: WeakKeyDictionary[Any, tuple[Reading, int]] = WeakKeyDictionary()
        self._kept: set[int] = set()
        """Requests, by `id`, that are being retracted just now."""

    def begin(self, req: Any, reading: Reading, tokens: int) -> None:
        """Note that `req` reads its first `tokens` tokens in place."""
        self._slots[req] = (reading, tokens)

    def end(self, req: Any) -> None:
        """End the lease of a request that ended; of one that is retracted, or reads nothing, do nothing."""
        if id(req) not in self._kept and (found := self._slots.pop(req, None)):
            found[0].release()

    def slots_of(self, req: Any) -> torch.Tensor | None:
        """int64 slots of the leading tokens that it reads in place; None where it has no lease."""
        found = self._slots.get(req)
        return None if found is None else found[0].slots[: found[1]]

    @contextmanager
    def kept(self, req: Any) -> Iterator[None]:
        """While its own slots are taken away, a request keeps what it reads."""
        self._kept.add(id(req))
        try:
            yield
        finally:
            self._kept.discard(id(req))


READINGS = Readings()  # a process has one scheduler
