"""The cards that can be simulated: published peaks, and the shares of them that are assumed to be reached."""

from __future__ import annotations

from dataclasses import dataclass

from psserve.errors import UsageError

COMPUTE_SHARE = 0.5
"""Of the peak FLOP/s that a prefill reaches: a planning assumption, to be replaced by a calibration."""
MEMORY_SHARE = 0.7
"""Of the peak memory bandwidth that a decode step reaches: likewise."""
POOL_SHARE = 0.85
"""Of a card's memory that weights and KV take up (SGLang's --mem-fraction-static)."""


@dataclass(frozen=True)
class Card:
    """One GPU, as its data sheet has it."""

    memory_bytes: float
    bytes_per_s: float
    """Of its memory."""
    flops: float
    """Dense bfloat16, a second."""
    link_bytes_per_s: float
    """NVLink, one way."""


CARDS: dict[str, Card] = {
    "A100-80G": Card(80e9, 2.039e12, 312e12, 300e9),
    "H100": Card(80e9, 3.35e12, 989e12, 450e9),
    "H200": Card(141e9, 4.8e12, 989e12, 450e9),
}


def find_card(name: str) -> Card:
    """Raises UsageError for a card that is not in CARDS."""
    if name not in CARDS:
        raise UsageError(f"hardware {name!r} is not known: give one of {', '.join(CARDS)}")
    return CARDS[name]
