"""A check of leases: pages hold the same bytes when they come back as when they were lent.

It is on where trees are checked (PSSERVE_CHECK_PURITY=1), and takes time: every lent byte is read twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from psserve.errors import ChangedLease

PageNumbers = np.ndarray[Any, np.dtype[np.int32]]


class LentBytes:
    """What the pages of every lease held when it began."""

    def __init__(self, buffers: Sequence[torch.Tensor], page_size: int) -> None:
        """`buffers`: [rows, ...] each, a prefill server's."""
        self._pages = [buffer.view(len(buffer) // page_size, -1).view(torch.uint8) for buffer in buffers]
        """uint8 [pages, bytes of a page] each."""
        self._noted: dict[int, tuple[PageNumbers, bytes]] = {}

    def lent(self, room: int, pages: PageNumbers) -> None:
        """Note what a room's pages hold."""
        self._noted[room] = pages, self._digest(pages)

    def returned(self, room: int) -> None:
        """Look at them again, once. Raises ChangedLease."""
        noted = self._noted.pop(room, None)
        if noted and self._digest(noted[0]) != noted[1]:
            raise ChangedLease(f"pages {noted[0].tolist()} were written to while they were lent for room {room}")

    def _digest(self, pages: PageNumbers) -> bytes:
        digest, numbers = hashlib.blake2b(), torch.from_numpy(pages.astype(np.int64))
        for buffer in self._pages:
            digest.update(buffer[numbers].cpu().numpy().data)
        return digest.digest()
