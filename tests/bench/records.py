"""Records of requests made by hand."""

from __future__ import annotations

from typing import Any

from psserve.bench.record import RequestRecord


def record(sent_s: float = 0.0, **fields: Any) -> RequestRecord:
    """A request that takes 1 s: its three tokens come after 0.2 s, 0.6 s and 1 s."""
    values: dict[str, Any] = {
        "session": "s",
        "step": 0,
        "call": 0,
        "module": "math",
        "due_s": sent_s,
        "first_s": sent_s + 0.2,
        "done_s": sent_s + 1.0,
        "chunk_s": (sent_s + 0.2, sent_s + 0.6, sent_s + 1.0),
        "prompt_tokens": 100,
        "cached_tokens": 40,
        "output_tokens": 3,
    }
    return RequestRecord(sent_s=sent_s, **(values | fields))
