"""The `usage` object of an answer: the decode worker's counts, the base's cache hits, sums over sequences."""

from __future__ import annotations
