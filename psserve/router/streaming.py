"""Answers that are streamed: one sequence relayed, or several interleaved.

The client's 200 is sent with the first event, so whatever fails before it still gets its own status.
"""

from __future__ import annotations

import asyncio
from time import monotonic

from aiohttp import web

from psserve.errors import RequestError
from psserve.router.body import Generation
from psserve.router.dialect import Events
from psserve.router.dispatch import Dispatcher, Sequence
from psserve.router.exchange import Exchange
from psserve.router.relay import DONE, SEPARATOR, ChoiceRelay, Relay, usage_event
from psserve.router.tasks import together
from psserve.router.usage import Usage, add_usage

LAST_WRITE_S = 2.0
HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class ClientStream:
    """The client's end of a stream: prepared at the first write."""

    def __init__(self, request: web.Request, exchange: Exchange, events: Events) -> None:
        self._request = request
        self._exchange = exchange
        self.events = events
        self.response: web.StreamResponse | None = None

    async def send(self, data: bytes) -> None:
        if self.response is None:
            self.response = web.StreamResponse(headers=HEADERS | self._exchange.headers())
            await self.response.prepare(self._request)
            self._exchange.first_byte = monotonic()
        self._exchange.streamed_events += data.count(SEPARATOR)
        await self.response.write(data)

    async def close(self) -> web.StreamResponse:
        assert self.response is not None, "a stream has at least its [DONE]"
        await self.response.write_eof()
        return self.response

    async def fail(self, error: RequestError) -> web.StreamResponse:
        """End a stream that has begun by an error event; a client that does not read even that is cut off."""
        assert self.response is not None, "before the first byte an error has a status of its own"
        self.response.force_close()
        try:
            async with asyncio.timeout(LAST_WRITE_S):
                await self.send(self.events.fail(error))
                return await self.close()
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            return self.response


async def stream_answer(
    dispatcher: Dispatcher, generation: Generation, exchange: Exchange, request: web.Request, events: Events
) -> web.StreamResponse:
    """Stream the answer to `generation`, as `events` has it.

    Raises RequestError while nothing was sent; a later failure becomes an error event that ends the stream.
    """
    client = ClientStream(request, exchange, events)
    try:
        if len(generation.sequences) == 1:
            await _stream_one(dispatcher, generation, exchange, client)
        else:
            await _stream_many(dispatcher, generation, exchange, client)
    except RequestError as error:
        if client.response is None:
            raise
        exchange.failed = error.code or "error"
        return await client.fail(error)
    return await client.close()


async def _stream_one(dispatcher: Dispatcher, generation: Generation, exchange: Exchange, client: ClientStream) -> None:
    async with dispatcher.open(generation.module, generation.sequences[0]) as legs:
        exchange.paired(legs)
        relay = Relay(legs, generation.include_usage, exchange.usage_note())
        client.events.begin(legs.prefill.prompt_tokens + 1, legs.prefill.cached_tokens)
        while data := await legs.read_some():
            if (whole := relay.feed(data)) and (out := client.events.feed(whole)):
                await client.send(out)
        relay.finish()
        exchange.usage = relay.usage


async def _stream_many(
    dispatcher: Dispatcher, generation: Generation, exchange: Exchange, client: ClientStream
) -> None:
    """All sequences at once, each event as it comes; then one usage chunk if it was asked for, and one [DONE]."""
    stream = _SharedStream(exchange, client)
    usages = await together(*(stream.run(dispatcher, generation, sequence) for sequence in generation.sequences))
    exchange.usage = add_usage(zip(generation.sequences, usages, strict=True))
    if generation.include_usage:
        await client.send(usage_event(stream.identity, exchange.usage | exchange.usage_note()))
    await client.send(DONE + SEPARATOR)


class _SharedStream:
    """What the sequences of one request share: the client, and one identity for all their chunks."""

    def __init__(self, exchange: Exchange, client: ClientStream) -> None:
        self._exchange = exchange
        self._client = client
        self._writing = asyncio.Lock()
        self.identity: dict[str, object] = {}

    async def run(self, dispatcher: Dispatcher, generation: Generation, sequence: Sequence) -> Usage:
        async with dispatcher.open(generation.module, sequence) as legs:
            self._exchange.paired(legs)
            relay = ChoiceRelay(legs, self.identity, sequence.index)
            while data := await legs.read_some():
                if out := relay.feed(data):
                    # One writer at a time: a write that waits for a slow client must not be overtaken.
                    async with self._writing:
                        await self._client.send(out)
            relay.finish()
            assert relay.usage is not None, "finish() passes only after the usage chunk"
            return relay.usage
