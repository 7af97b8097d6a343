"""A decode worker's event stream on its way to the client.

Bytes pass untouched unless they may hold an event that we must see: the usage chunk (the split is checked there), an
error or abort that SGLang sends under status 200, and `[DONE]`, which is only passed on when all was well.
"""

from __future__ import annotations

from typing import Any

import orjson

from psserve.router.dispatch import Legs
from psserve.router.failures import broken, error_in_stream
from psserve.router.usage import Usage, checked_usage

SEPARATOR = b"\n\n"
DATA = b"data: "
DONE = b"data: [DONE]"
MARKS = (b'"error"', b'"choices":[]', b'"abort"', b"[DONE]")
"""One of these is in every event that matters. Text of the answer cannot hold them: JSON escapes its quotes."""


class Relay:
    """One sequence, alone in its request."""

    def __init__(self, legs: Legs, include_usage: bool, usage_note: Usage | None = None) -> None:
        """`usage_note` is added to the usage chunk, which the client gets if it asked for it (`include_usage`)."""
        self._legs = legs
        self._usage_note = usage_note or {}
        self._include_usage = include_usage
        self._rest = b""
        self.usage: Usage | None = None
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """What the client gets of `data`, whole events only. Raises LegFailure."""
        data = self._rest + data if self._rest else data
        end = data.rfind(SEPARATOR) + len(SEPARATOR)
        if end < len(SEPARATOR):
            self._rest = data
            return b""
        whole, self._rest = (data, b"") if end == len(data) else (data[:end], data[end:])
        return self._events(whole)

    def finish(self) -> None:
        """The worker's stream has ended. Raises LegFailure when it had not come to its end."""
        if not self.done:
            raise broken(self._legs.pair.decode, "reset", "the stream ended without [DONE]")

    def _events(self, whole: bytes) -> bytes:
        if not any(mark in whole for mark in MARKS):
            return whole
        return b"".join(self._event(event) for event in whole.split(SEPARATOR)[:-1])

    def _event(self, event: bytes) -> bytes:
        if event == DONE:
            return self._done()
        if not any(mark in event for mark in MARKS):
            return event + SEPARATOR
        chunk = self._parse(event)
        if not self._is_usage(chunk):
            return event + SEPARATOR
        if not self._include_usage or self.usage is None:
            return b""
        return _encode(chunk | {"usage": self.usage | self._usage_note})

    def _done(self) -> bytes:
        if self.usage is None:
            raise broken(self._legs.pair.decode, "malformed", "no usage chunk before [DONE]")
        self.done = True
        return DONE + SEPARATOR

    def _is_usage(self, chunk: dict[str, Any]) -> bool:
        """Whether this is the usage chunk, which it takes note of."""
        if chunk.get("choices") or not isinstance(chunk.get("usage"), dict):
            return False
        self.usage = checked_usage(self._legs, chunk["usage"])
        return True

    def _parse(self, event: bytes) -> dict[str, Any]:
        """The chunk in `event`. Raises LegFailure when it reports that the sequence failed."""
        try:
            chunk = orjson.loads(event.removeprefix(DATA))
        except orjson.JSONDecodeError as error:
            raise broken(self._legs.pair.decode, "malformed", f"stream event: {error}") from error
        if not isinstance(chunk, dict):
            raise broken(self._legs.pair.decode, "malformed", "stream event is not an object")
        if reason := chunk.get("error"):
            raise error_in_stream(self._legs.pair.decode, reason)
        if any(choice.get("finish_reason") == "abort" for choice in chunk.get("choices", ())):
            raise broken(self._legs.pair.decode, "aborted", "decode finish_reason 'abort'")
        return chunk


class ChoiceRelay(Relay):
    """One of several sequences of a request: its events get the request's identity and the sequence's index.

    Usage chunks and `[DONE]` are kept back; the request sends its own.
    """

    def __init__(self, legs: Legs, identity: dict[str, Any], index: int) -> None:
        """`identity` is shared by the request's sequences, and filled from the first chunk of any."""
        super().__init__(legs, include_usage=False)
        self._identity = identity
        self._index = index

    def _events(self, whole: bytes) -> bytes:
        return b"".join(self._event(event) for event in whole.split(SEPARATOR)[:-1])

    def _event(self, event: bytes) -> bytes:
        if event == DONE:
            self._done()
            return b""
        chunk = self._parse(event)
        if not self._identity:
            self._identity.update({name: chunk.get(name) for name in ("id", "object", "created", "model")})
        if self._is_usage(chunk):
            return b""
        for choice in chunk.get("choices", ()):
            choice["index"] = self._index
        return _encode(chunk | self._identity)


def usage_event(identity: dict[str, Any], usage: Usage) -> bytes:
    """A usage chunk of a request."""
    return _encode(identity | {"choices": [], "usage": usage})


def error_event(body: dict[str, Any]) -> bytes:
    """The last event of a stream that failed; no `[DONE]` follows."""
    return _encode(body)


def _encode(document: dict[str, Any]) -> bytes:
    return DATA + orjson.dumps(document) + SEPARATOR
