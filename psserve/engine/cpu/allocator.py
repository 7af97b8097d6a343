"""KV slot allocators for CPU: SGLang's own, with its two Triton kernels written in PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from sglang.srt.mem_cache.allocator import PagedTokenToKVPoolAllocator, TokenToKVPoolAllocator


def allocator_class(size: int, *, page_size: int, **kwargs: Any) -> Any:
    """Build the allocator for `size` slots in pages of `page_size` (SGLang calls this like a class)."""
    if page_size == 1:
        return TokenToKVPoolAllocator(size, **kwargs)
    return TorchPagedAllocator(size, page_size=page_size, **kwargs)


class TorchPagedAllocator(PagedTokenToKVPoolAllocator):  # type: ignore[misc]
    """Paged allocation: slots of one request fill a page in order before the next page is opened.

    Contracts of both methods: sglang/srt/mem_cache/allocator/paged.py. All lengths are in tokens, int64, one a request.
    """

    page_size: int
    free_pages: torch.Tensor

    def alloc_extend(
        self,
        prefix_lens: torch.Tensor,
        prefix_lens_cpu: torch.Tensor,
        seq_lens: torch.Tensor,
        seq_lens_cpu: torch.Tensor,
        last_loc: torch.Tensor,
        extend_num_tokens: int,
        **_: Any,
    ) -> torch.Tensor | None:
        """Slots for positions [prefix, seq) of every request, concatenated; None when the pool is exhausted."""
        starts, ends = prefix_lens_cpu.tolist(), seq_lens_cpu.tolist()
        needed = sum(self._pages(end) - self._pages(start) for start, end in zip(starts, ends, strict=True))
        pages = self._take_pages(needed)
        if pages is None:
            return None
        parts, used = [], 0
        for start, end, last in zip(starts, ends, last_loc.tolist(), strict=True):
            count = self._pages(end) - self._pages(start)
            parts.append(self._slots(start, end, last, pages[used : used + count]))
            used += count
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)

    def alloc_decode(
        self, seq_lens: torch.Tensor, seq_lens_cpu: torch.Tensor, last_loc: torch.Tensor
    ) -> torch.Tensor | None:
        """One slot a request, for position seq - 1; None when the pool is exhausted."""
        opens_page = (seq_lens_cpu - 1) % self.page_size == 0
        pages = self._take_pages(int(opens_page.sum()))
        if pages is None:
            return None
        slots = last_loc.to(torch.int64) + 1
        slots[opens_page] = pages * self.page_size
        return slots

    def _pages(self, tokens: int) -> int:
        return -(-tokens // self.page_size)

    def _take_pages(self, count: int) -> torch.Tensor | None:
        if self.need_sort and count > len(self.free_pages):
            self.merge_and_sort_free()
        if count > len(self.free_pages):
            return None
        pages, self.free_pages = self.free_pages[:count], self.free_pages[count:]
        return pages

    def _slots(self, start: int, end: int, last: int, pages: torch.Tensor) -> torch.Tensor:
        """Slots of positions [start, end): the rest of the page that holds `last`, then the new pages in order."""
        room = min(end, self._pages(start) * self.page_size) - start
        rest = torch.arange(last + 1, last + 1 + room, dtype=torch.int64)
        fresh = (pages[:, None] * self.page_size + torch.arange(self.page_size)).reshape(-1)
        return torch.cat((rest, fresh[: end - start - room]))
