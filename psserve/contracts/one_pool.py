"""What one KV pool for all servers has room for."""

from __future__ import annotations

MOST_SOURCES = 8
"""Prefill servers that a decode server reads from at once, restarted ones whose pages are still read included."""
LARGEST_POOL = 1 << 20
"""Rows of a prefill server's pool, at most."""
_SPARE_PART = 8
"""So much of a decode server's own part is left for the last pages of prompts that arrive beside the longest answer."""
_SPARE_PAGES = 2
"""And so many pages, at least."""


def longest_answer(own_tokens: int, page_size: int) -> int:
    """Tokens that an answer may have whose server's own part is this large: the rest is for the pages of prompts."""
    return max(0, own_tokens - max(_SPARE_PAGES * page_size, own_tokens // _SPARE_PART))
