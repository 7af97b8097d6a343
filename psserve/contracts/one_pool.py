"""What one KV pool for all servers has room for."""

from __future__ import annotations

MOST_SOURCES = 8
"""Prefill servers that a decode server reads from at once, restarted ones whose pages are still read included."""
LARGEST_POOL = 1 << 20
"""Rows of a prefill server's pool, at most."""
