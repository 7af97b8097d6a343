"""Whose conversation a request belongs to, as far as its client says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADERS = (
    "x-smg-routing-key",
    "x-session-id",
    "x-dynamo-session-id",
    "x-session-token",
    "x-litellm-session-id",
    "x-claude-code-session-id",
    "x-conversation-id",
    "x-correlation-id",
    "x-session-affinity",
    "x-user-id",
)
"""What clients of SGLang, Dynamo, llm-d, AIBrix, LiteLLM and agents send; the first one present counts."""
FIELDS = ("prompt_cache_key", "user")
"""Fields of the body that stand in for a header."""
MAX_LENGTH = 256


def session_of(headers: Mapping[str, str], body: Mapping[str, Any]) -> str | None:
    """The client's name for the session, None when it gives none. `headers` must ignore case, as aiohttp's do.

    Names longer than MAX_LENGTH are cut: they only steer routing, and are kept in memory.
    """
    given = [headers.get(name) for name in HEADERS] + [body.get(name) for name in FIELDS]
    return next((name[:MAX_LENGTH] for name in given if isinstance(name, str) and name), None)
