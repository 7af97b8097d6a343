"""Answers with one call of a tool at most, for clients that ask for it (`parallel_tool_calls: false`).

The module's server ends a call that it forces after the first (see engine/fixes/tool_calls.py). What a module writes of
itself no grammar holds: the calls after the first are left out here, streamed and not, in whatever form they are read.
"""

from __future__ import annotations

from typing import Any

import orjson

from psserve.errors import RequestError
from psserve.router.answers.streaming import DATA, DONE, SEPARATOR, Events
from psserve.router.body.checks import Body
from psserve.router.pairs.pair import Document


def wants_one_call(body: Body) -> bool:
    """Whether an answer to a checked chat body may have one call alone."""
    return body.get("parallel_tool_calls") is False and bool(body.get("tools"))


def with_one_call(document: Document) -> Document:
    """The chat completion `document`, each of its choices with its first call alone."""
    for choice in document["choices"]:
        calls = choice["message"].get("tool_calls") or ()
        if len(calls) > 1:
            choice["message"]["tool_calls"] = calls[:1]
            choice["finish_reason"] = "tool_calls"  # the call that is left is complete, however the last one ended
    return document


class OneCallEvents(Events):
    """The same for a stream, whose events then are those of `inner`."""

    def __init__(self, inner: Events) -> None:
        self._inner = inner
        self._cut: set[int] = set()
        """Choices of which a second call was left out."""

    def begin(self, prompt_tokens: int, cached_tokens: int) -> None:
        self._inner.begin(prompt_tokens, cached_tokens)

    def feed(self, data: bytes) -> bytes:
        kept = b"".join(self._event(event) for event in data.split(SEPARATOR)[:-1])
        return self._inner.feed(kept) if kept else b""

    def fail(self, error: RequestError) -> bytes:
        return self._inner.fail(error)

    def _event(self, event: bytes) -> bytes:
        if event == DONE or (b'"tool_calls"' not in event and not self._cut):
            return event + SEPARATOR
        chunk = orjson.loads(event.removeprefix(DATA))
        choices = [choice for choice in chunk["choices"] if self._keep(choice)]
        if chunk["choices"] and not choices:
            return b""
        return DATA + orjson.dumps(chunk | {"choices": choices}) + SEPARATOR

    def _keep(self, choice: dict[str, Any]) -> bool:
        """Take calls after the first out of `choice`; whether anything is left of it."""
        delta = choice["delta"]
        calls = delta.get("tool_calls") or []
        first = [call for call in calls if not call.get("index")]
        if len(first) < len(calls):
            self._cut.add(choice["index"])
            delta["tool_calls"] = first or None
        is_end = choice.get("finish_reason") is not None
        if is_end and choice["index"] in self._cut:
            choice["finish_reason"] = "tool_calls"
        return is_end or not calls or bool(first or delta.get("content"))
