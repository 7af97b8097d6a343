"""The paged allocator in PyTorch keeps SGLang's contract."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from psserve.engine.cpu.allocator import TorchPagedAllocator, allocator_class  # noqa: E402

PAGE = 4
POOL = 64


def allocator(size: int = POOL, page_size: int = PAGE) -> TorchPagedAllocator:
    return allocator_class(size, page_size=page_size, dtype=torch.float32, device="cpu", kvcache=None, need_sort=True)


def extend(pool: TorchPagedAllocator, starts: list[int], ends: list[int], lasts: list[int]) -> torch.Tensor | None:
    start, end, last = (torch.tensor(values, dtype=torch.int64) for values in (starts, ends, lasts))
    return pool.alloc_extend(start, start, end, end, last, int((end - start).sum()))


def decode(pool: TorchPagedAllocator, lens: list[int], lasts: list[int]) -> torch.Tensor | None:
    seq_lens = torch.tensor(lens, dtype=torch.int64)
    return pool.alloc_decode(seq_lens, seq_lens, torch.tensor(lasts, dtype=torch.int64))


def test_pages_of_one_token_use_sglangs_own_allocator() -> None:
    assert not isinstance(allocator(page_size=1), TorchPagedAllocator)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=3))
def test_a_requests_slots_fill_pages_in_order_and_belong_to_it_alone(growth: list[tuple[int, int, int]]) -> None:
    pool = allocator()
    held: list[list[int]] = [[] for _ in growth]
    for step in range(2):
        starts = [len(slots) for slots in held]
        ends = [start + grow[step] for start, grow in zip(starts, growth, strict=True)]
        new = extend(pool, starts, ends, [slots[-1] if slots else -1 for slots in held])
        assert new is not None
        parts = new.split([end - start for start, end in zip(starts, ends, strict=True)])
        for slots, part in zip(held, parts, strict=True):
            slots += part.tolist()
    for _ in range(max(grow[2] for grow in growth)):
        growing = [slots for slots in held if slots]
        if not growing:
            break
        one = decode(pool, [len(slots) + 1 for slots in growing], [slots[-1] for slots in growing])
        assert one is not None
        for slots, slot in zip(growing, one.tolist(), strict=True):
            slots.append(slot)
    everything = [slot for slots in held for slot in slots]
    assert len(set(everything)) == len(everything)
    pages = [{slot // PAGE for slot in slots} for slots in held]
    assert sum(map(len, pages)) == len(set().union(*pages))
    assert all(slot % PAGE == position % PAGE for slots in held for position, slot in enumerate(slots))
    assert 0 not in set().union(*pages)  # the padding page


def test_freed_pages_come_back() -> None:
    pool = allocator()
    slots = extend(pool, [0], [POOL], [-1])
    assert slots is not None
    assert pool.available_size() == 0
    pool.free(slots)
    assert pool.available_size() == POOL


@pytest.mark.parametrize("ask", [lambda pool: extend(pool, [0], [POOL + 1], [-1]), lambda pool: full_decode(pool)])
def test_an_exhausted_pool_gives_none_and_loses_nothing(ask: object) -> None:
    pool = allocator()
    assert ask(pool) is None  # type: ignore[operator]


def full_decode(pool: TorchPagedAllocator) -> torch.Tensor | None:
    slots = extend(pool, [0], [POOL], [-1])
    assert slots is not None
    return decode(pool, [POOL + 1], [int(slots[-1])])


def test_first_decode_of_an_empty_request_opens_a_page() -> None:
    slot = decode(allocator(), [1], [-1])
    assert slot is not None
    assert int(slot) % PAGE == 0
