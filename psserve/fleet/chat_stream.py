"""The events of a streamed chat answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from psserve.errors import FleetError


@dataclass(frozen=True)
class Usage:
    """What one answer took, in tokens."""

    prompt_tokens: int
    cached_tokens: int
    """Of the prompt's, those whose KV the base had."""
    completion_tokens: int


@dataclass(frozen=True)
class Event:
    """A piece of text, or one of the facts that come at the end."""

    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None


def events(lines: Iterable[bytes]) -> Iterator[Event]:
    """The events of a server-sent stream, to its [DONE].

    Raises:
        FleetError: the server reports an error, or the stream ends early.
        ValueError: an event is no JSON.
    """
    for line in lines:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        document = json.loads(data)
        if "error" in document:
            raise FleetError(str(document["error"].get("message", document["error"])))
        for choice in document.get("choices", ()):
            text, reason = choice.get("delta", {}).get("content") or "", choice.get("finish_reason")
            if text or reason:
                yield Event(text, reason)
        if document.get("usage"):
            yield Event(usage=_usage(document["usage"]))
    raise FleetError("the answer broke off before its end")


def _usage(found: dict[str, Any]) -> Usage:
    details = found.get("prompt_tokens_details") or {}
    return Usage(
        prompt_tokens=found.get("prompt_tokens", 0),
        cached_tokens=details.get("cached_tokens") or 0,
        completion_tokens=found.get("completion_tokens", 0),
    )
