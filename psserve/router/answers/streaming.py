"""Answers that are streamed: one sequence relayed, or several interleaved.

The client's 200 is sent with the first event, so whatever fails before it still gets its own status.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import orjson
from aiohttp import HttpVersion11, web

from psserve.errors import RequestError
from psserve.router.answers.generation import Generation
from psserve.router.observability.exchange import Exchange
from psserve.router.pairs.dispatcher import Dispatcher
from psserve.router.pairs.pair import Legs, Sequence, Usage, add_usage, checked_usage
from psserve.router.workers.failures import broken, error_in_stream
from psserve.router.workers.tasks import Deadline, Timeout, together

SEPARATOR = b"\n\n"
DATA = b"data: "
DONE = b"data: [DONE]"
MARKS = (b'"error"', b'"choices":[]', b'"abort"', b"[DONE]")
"""One of these is in every event that matters. Text of the answer cannot hold them: JSON escapes its quotes."""
LAST_WRITE_S = 2.0
STREAM_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class Events:
    """A streamed answer as its client gets it. This one: as the workers send it, which is OpenAI's form."""

    def begin(self, prompt_tokens: int, cached_tokens: int) -> None:
        """The base has read the prompt."""

    def feed(self, data: bytes) -> bytes:
        """What the client gets for whole events of the workers' form, `[DONE]` included."""
        return data

    def fail(self, error: RequestError) -> bytes:
        """The last event of a stream that has begun and cannot go on."""
        return error_event(error.body())


async def stream_answer(
    dispatcher: Dispatcher,
    generation: Generation,
    exchange: Exchange,
    request: web.Request,
    events: Events,
    end_by: float,
) -> web.StreamResponse:
    """Stream the answer to `generation`, as `events` has it, until `end_by` (monotonic seconds).

    Raises RequestError while nothing was sent; a later failure becomes an error event that ends the stream.
    """
    client = ClientStream(request, exchange, events)
    try:
        if len(generation.sequences) == 1:
            last = await _stream_one(dispatcher, generation, exchange, client)
        else:
            last = await _stream_many(dispatcher, generation, exchange, client)
    except RequestError as error:
        if client.response is None:
            raise
        exchange.failed = error.code or "error"
        return await client.fail(error)
    return await client.end(last, end_by)


async def _stream_one(
    dispatcher: Dispatcher, generation: Generation, exchange: Exchange, client: ClientStream
) -> bytes:
    """Its last events, which are not sent yet.

    A client may leave once it has read them. The workers' part must be over by then, or it would be broken off.
    """
    async with dispatcher.open(generation.module, generation.sequences[0]) as legs:
        exchange.paired(legs.record)
        relay = Relay(legs, generation.include_usage, exchange.usage_note())
        client.events.begin(legs.prefill.prompt_tokens + 1, legs.prefill.cached_tokens)
        while data := await legs.read_some():
            whole = relay.feed(data)
            exchange.usage = relay.usage
            if whole and (out := client.events.feed(whole)):
                await client.send(out)
        relay.finish()
    return client.events.feed(DONE + SEPARATOR)


async def _stream_many(
    dispatcher: Dispatcher, generation: Generation, exchange: Exchange, client: ClientStream
) -> bytes:
    """All sequences at once, each event as it comes. The last events: a usage chunk if asked for, and one [DONE]."""
    stream = _SharedStream(exchange, client)
    usages = await together(*(stream.run(dispatcher, generation, sequence) for sequence in generation.sequences))
    exchange.usage = add_usage(zip(generation.sequences, usages, strict=True))
    usage = usage_event(stream.identity, exchange.usage | exchange.usage_note()) if generation.include_usage else b""
    return usage + DONE + SEPARATOR


class _SharedStream:
    """What the sequences of one request share: the client, and one identity for all their chunks."""

    def __init__(self, exchange: Exchange, client: ClientStream) -> None:
        self._exchange = exchange
        self._client = client
        self._writing = asyncio.Lock()
        self.identity: dict[str, object] = {}

    async def run(self, dispatcher: Dispatcher, generation: Generation, sequence: Sequence) -> Usage:
        async with dispatcher.open(generation.module, sequence) as legs:
            self._exchange.paired(legs.record)
            relay = ChoiceRelay(legs, self.identity, sequence.index)
            while data := await legs.read_some():
                if (whole := relay.feed(data)) and (out := self._client.events.feed(whole)):
                    # One writer at a time: a write that waits for a slow client must not be overtaken.
                    async with self._writing:
                        await self._client.send(out)
            relay.finish()
            assert relay.usage is not None, "finish() passes only after the usage chunk"
            return relay.usage


class ClientStream:
    """The client's end of a stream: prepared at the first write."""

    def __init__(self, request: web.Request, exchange: Exchange, events: Events) -> None:
        self._request = request
        self._exchange = exchange
        self.events = events
        self.response: web.StreamResponse | None = None

    async def send(self, data: bytes) -> None:
        if self.response is None:
            self.response = web.StreamResponse(headers=STREAM_HEADERS | self._exchange.headers())
            if self._request.version < HttpVersion11:
                self.response.force_close()  # the end of the connection is all that ends a body without chunks
            await self.response.prepare(self._request)
            self._exchange.first_byte = monotonic()
        self._exchange.streamed_events += data.count(SEPARATOR)
        await self.response.write(data)

    async def end(self, last: bytes, by: float) -> web.StreamResponse:
        """Send the `last` events and end the stream. A client that does not read even that is cut off.

        It has until `by` (monotonic seconds), or LAST_WRITE_S where that is past: the rest of a stream is up to 64 KiB
        and what the kernel holds.
        """
        try:
            async with Deadline(max(by, monotonic() + LAST_WRITE_S)):
                await self.send(last)
                assert self.response is not None, "it was sent something"
                await self.response.write_eof()
        except Timeout as timeout:
            self._exchange.failed = self._exchange.failed or timeout.code
            if self._request.transport is not None:
                self._request.transport.abort()
        assert self.response is not None, "what waits for the client was prepared"
        return self.response

    async def fail(self, error: RequestError) -> web.StreamResponse:
        """End a stream that has begun by an error event."""
        assert self.response is not None, "before the first byte an error has a status of its own"
        self.response.force_close()
        return await self.end(self.events.fail(error), 0.0)


class Relay:
    """One sequence, alone in its request.

    It looks at bytes, not at events as clients do (psserve/contracts/sse.py): nearly all go on as they came, unparsed.
    `[DONE]` is kept back: the request sends its own.
    """

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
            self._done()
            return b""
        if not any(mark in event for mark in MARKS):
            return event + SEPARATOR
        chunk = self._parse(event)
        if not self._is_usage(chunk):
            return event + SEPARATOR
        if not self._include_usage or self.usage is None:
            return b""
        return _encode(chunk | {"usage": self.usage | self._usage_note})

    def _done(self) -> None:
        if self.usage is None:
            raise broken(self._legs.pair.decode, "malformed", "no usage chunk before [DONE]")
        self.done = True

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

    Usage chunks are kept back too.
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
