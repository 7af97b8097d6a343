"""One streamed request: what came, and when."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
import orjson

from psserve.contracts.sse import EventReader


class RequestFailed(Exception):
    """Why a request has no whole answer, in words that are the same for all requests that fail so."""


class TokenCounts(NamedTuple):
    """Counts of tokens, as the server says them."""

    prompt: int
    cached: int
    """Of the prompt's."""
    output: int


@dataclass
class Streamed:
    """An answer as it comes. Moments are those of `time.perf_counter`."""

    pieces: list[str] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)
    """When each piece of text came."""
    done: float = 0.0
    """When the last byte came, or the failure."""
    id: str | None = None
    """The answer's own name."""
    usage: TokenCounts | None = None
    _reader: EventReader = field(default_factory=EventReader)

    @property
    def ended(self) -> bool:
        """Whether its end was seen."""
        return self._reader.ended

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def counts(self) -> TokenCounts:
        """The server's counts; zeros where it did not come to say them."""
        return self.usage or TokenCounts(0, 0, 0)

    def feed(self, data: bytes, now: float) -> None:
        """Take in bytes, wherever they begin and end. Raises RequestFailed for an error and for what is no event."""
        try:
            for event in self._reader.feed(data):
                self._take(event, now)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise RequestFailed("the stream is not in OpenAI's form") from error

    def _take(self, event: Mapping[str, Any], now: float) -> None:
        if error := event.get("error"):
            raise RequestFailed(f"error in the stream: {_message(error)}")
        self.id = self.id or event.get("id")
        for choice in event.get("choices") or ():
            if text := _text_of(choice):
                self.pieces.append(text)
                self.moments.append(now)
        if usage := event.get("usage"):
            self.usage = _usage(usage)


async def stream(
    http: aiohttp.ClientSession, url: str, body: Mapping[str, Any], headers: Mapping[str, str], into: Streamed
) -> None:
    """Send a request and take in its answer. Raises RequestFailed; `into` then has what came before."""
    try:
        async with http.post(url, data=orjson.dumps(body), headers=headers) as response:
            if response.status != 200:
                raise RequestFailed(refusal_text(response.status, await response.read()))
            async for piece in response.content.iter_any():
                into.feed(piece, time.perf_counter())
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise RequestFailed(f"no whole answer: {type(error).__name__}") from error
    finally:
        into.done = time.perf_counter()
    if not into.ended:
        raise RequestFailed("the stream broke off before its end")
    if into.usage is None:
        raise RequestFailed("the server does not say its token counts (stream_options.include_usage)")
    if not into.moments:  # tokens without a text of their own: only their end was seen
        into.moments.append(into.done)


def _usage(said: Mapping[str, Any]) -> TokenCounts:
    details = said.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens") or 0
    return TokenCounts(int(said["prompt_tokens"]), int(cached), int(said["completion_tokens"]))


def refusal_text(status: int, payload: bytes) -> str:
    """What an error's body says, in OpenAI's form or SGLang's; its status where it says nothing."""
    try:
        document = orjson.loads(payload)
        error = document.get("error", document)
        return f"status {status}: {_message(error)}"
    except (ValueError, AttributeError):
        return f"status {status}"


def _message(error: Any) -> str:
    return " ".join(str(error.get("message", error) if isinstance(error, dict) else error).split())[:200]


def _text_of(choice: Mapping[str, Any]) -> str:
    """The text of a chat chunk (reasoning counts as bench_serving counts it) or of a completion's."""
    delta = choice.get("delta")
    if delta is None:
        return choice.get("text") or ""
    return (delta.get("reasoning_content") or "") + (delta.get("content") or "")
