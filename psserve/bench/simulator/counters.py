"""What a simulated system counts beside its requests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counters:
    """Totals of a run; tokens and bytes of all requests, whether their records are kept or not."""

    requests: int = 0
    sessions: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompts, found by the servers that computed them."""
    computed_tokens: int = 0
    output_tokens: int = 0
    decode_cached_tokens: int = 0
    """Of the prompts, found by decode servers: those were not sent."""
    kv_bytes: int = 0
    """Sent from prefill to decode servers."""

    def add(self, other: Counters) -> None:
        """Add the totals of another run."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
