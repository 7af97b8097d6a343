"""Lent pages that were written to are found when they come back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from psserve.engine.onepool.unchanged import LentBytes
from psserve.errors import ChangedLease

PAGE, PAGES = 4, 8
MINE = np.array([5, 2], dtype=np.int32)


def buffers(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [torch.arange(PAGES * PAGE * 6).to(dtype).view(PAGES * PAGE, 2, 3) for _ in range(3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pages_that_stayed_and_others_that_did_not_are_no_error(dtype: torch.dtype) -> None:
    kv = buffers(dtype)
    check = LentBytes(kv, PAGE)
    check.lent(1, MINE)
    kv[0][3 * PAGE] = 0
    check.returned(1)
    check.returned(1)  # known no more
    check.returned(2)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("page", MINE)
@pytest.mark.parametrize("place", [0, PAGE - 1])
def test_a_write_to_any_buffer_and_row_is_found(number: int, page: int, place: int) -> None:
    kv = buffers()
    check = LentBytes(kv, PAGE)
    check.lent(7, MINE)
    kv[number][page * PAGE + place, 1, 2] += 1
    with pytest.raises(ChangedLease, match=r"pages \[5, 2\] were written to while they were lent for room 7"):
        check.returned(7)
