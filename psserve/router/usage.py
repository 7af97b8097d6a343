"""The `usage` object of an answer: the decode worker's counts, the base's cache hits, sums over sequences."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psserve.router.dispatch import Legs, Sequence

Usage = dict[str, Any]


def checked_usage(legs: Legs, usage: Usage) -> Usage:
    """`usage` of the decode leg with `cached_tokens` of the prefill leg: what the base did not compute again.

    Raises LegFailure when the two legs disagree about the prompt.
    """
    legs.check_split(usage.get("prompt_tokens"))
    details = usage.get("prompt_tokens_details") or {}
    legs.record.decode_cached_tokens = int(details.get("cached_tokens") or 0)
    legs.record.output_tokens = int(usage.get("completion_tokens") or 0)
    return usage | {"prompt_tokens_details": details | {"cached_tokens": legs.prefill.cached_tokens}}


def add_usage(parts: Iterable[tuple[Sequence, Usage]]) -> Usage:
    """The usage of a request of several sequences, given in order: each prompt counts once, each answer counts."""
    total: Usage = {"prompt_tokens": 0, "completion_tokens": 0, "reasoning_tokens": 0}
    cached = 0
    seen: set[int] = set()
    for sequence, usage in parts:
        if sequence.prompt_index not in seen:
            seen.add(sequence.prompt_index)
            total["prompt_tokens"] += usage["prompt_tokens"]
            cached += usage["prompt_tokens_details"]["cached_tokens"]
        total["completion_tokens"] += usage.get("completion_tokens") or 0
        total["reasoning_tokens"] += usage.get("reasoning_tokens") or 0
    total["total_tokens"] = total["prompt_tokens"] + total["completion_tokens"]
    total["prompt_tokens_details"] = {"cached_tokens": cached}
    return total
