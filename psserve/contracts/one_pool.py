"""What one KV pool for all servers has room for."""

from __future__ import annotations

import math

MOST_SOURCES = 8
"""Prefill servers that a decode server reads from at once, restarted ones whose pages are still read included."""
LARGEST_POOL = 1 << 20
"""Rows of a prefill server's pool, at most."""
GPU_STEP = 2 << 20
"""Bytes: what CUDA maps of a GPU's memory begins and ends at multiples of it, on all GPUs that we know of."""
MOST_ELEMENTS = 1 << 31
"""Of one buffer on a GPU, addresses without memory included: kernels of attention may count them in 32 bits."""
_SPARE_PART = 8
"""So much of a decode server's own part is left for the last pages of prompts that arrive beside the longest answer."""
_SPARE_PAGES = 2
"""And so many pages, at least."""


def longest_answer(own_tokens: int, page_size: int) -> int:
    """Tokens that an answer may have whose server's own part is this large: the rest is for the pages of prompts."""
    return max(0, own_tokens - max(_SPARE_PAGES * page_size, own_tokens // _SPARE_PART))


def round_up(number: int, step: int) -> int:
    """The first multiple of `step` that is not less than `number`."""
    return -(-number // step) * step


def row_step(row_bytes: int, page_size: int, step: int) -> int:
    """The least number of rows after which a page of KV ends, and so does a piece of `step` bytes of memory."""
    return math.lcm(page_size, step // math.gcd(step, row_bytes))


def places(own_rows: int, place_rows: int, most_rows: int) -> int:
    """How many prefill servers' rows a buffer of at most `most_rows` has places for, beside its own."""
    return min(MOST_SOURCES, max(0, most_rows - own_rows) // place_rows)
