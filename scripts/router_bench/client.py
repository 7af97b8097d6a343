"""Requests, chats whose last message nobody has sent before, and a client that costs little beside what it measures.

Its connections are bare, and stay open; there is one request at a time on each.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import cast

WORDS = """
the a of to and in that it is was for on with as at by from or be are this which an not have one all but had were when
""".split()  # noqa: SIM905
SHORT_WORDS = 40
LONG_WORDS = 8_000
SHARED = 0.75
"""Of a prompt's words, so many are the system message, which all requests of a run have in common."""


def requests(port: int, *, words: int, max_tokens: int, stream: bool, seed: int) -> Iterator[bytes]:
    """Chats of `words` words for the server on `port`, one after the other without end."""
    rng = random.Random(seed)
    system = _text(rng, int(words * SHARED))
    for number in range(10**9):
        user = f"{number} {_text(rng, words - int(words * SHARED))}"
        document = {
            "model": "math",
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
            "max_tokens": max_tokens,
            "stream": stream,
        }
        yield _post(port, json.dumps(document, separators=(",", ":")).encode())


def _text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def _post(port: int, body: bytes) -> bytes:
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


LAST_CHUNK = b"0\r\n\r\n"
PATIENCE_S = 60.0


class BadAnswer(Exception):
    """The server did not answer as it should: a status other than 200, a broken connection, half a stream."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Seconds from sending a request to the first and the last byte of its answer."""

    first_s: float
    total_s: float


class Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[Answered] | None = None
        self._begin()

    def _begin(self) -> None:
        self._data = b""
        self._size: int | None = None
        """Of the whole answer; None: not known, or chunked."""
        self._is_chunked = False
        self._first: float | None = None
        self._sent = 0.0

    @classmethod
    async def open(cls, port: int) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(f"the connection broke: {exc!r}")

    def close(self) -> None:
        self._done = None
        if self._transport is not None:
            self._transport.close()

    def send(self, request: bytes) -> asyncio.Future[Answered]:
        """Send `request`; the future fails with BadAnswer."""
        assert self._transport is not None
        self._done = asyncio.get_running_loop().create_future()
        self._begin()
        self._sent = perf_counter()
        self._transport.write(request)
        return self._done

    def data_received(self, data: bytes) -> None:
        if self._first is None:
            self._first = perf_counter()
        # Of a chunked body only the end is kept: streams are long.
        self._data = (self._data + data)[-64:] if self._is_chunked else self._data + data
        if self._size is None and not self._is_chunked and b"\r\n\r\n" in self._data:
            self._read_head()
        if self._is_chunked:
            if self._data.endswith(LAST_CHUNK):
                self._end(b"[DONE]" in self._data)
        elif self._size is not None and len(self._data) >= self._size:
            self._end(True)

    def _read_head(self) -> None:
        head, _, _ = self._data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            self._fail(f"answered: {self._data[:300]!r}")
            return
        lines = head.lower().split(b"\r\n")
        self._is_chunked = any(line.startswith(b"transfer-encoding:") for line in lines)
        for line in lines:
            if line.startswith(b"content-length:"):
                self._size = len(head) + 4 + int(line.partition(b":")[2])

    def _end(self, is_whole: bool) -> None:
        if not is_whole:
            self._fail("the stream ended without [DONE]")
        elif self._done is not None and not self._done.done():
            assert self._first is not None
            self._done.set_result(Answered(self._first - self._sent, perf_counter() - self._sent))

    def _fail(self, why: str) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(BadAnswer(why))


async def open_loop(port: int, requests: Iterator[bytes], rate: float, seconds: float) -> list[Answered]:
    """Send `rate` requests a second, evenly, however long the answers take. Raises BadAnswer."""
    idle: list[Connection] = []
    loop = asyncio.get_running_loop()

    async def one(request: bytes) -> Answered:
        while idle and not idle[-1].is_open:  # the server closed it for being idle
            idle.pop()
        connection = idle.pop() if idle else await Connection.open(port)
        answered = await connection.send(request)
        idle.append(connection)
        return answered

    start, tasks = loop.time(), []
    for number in range(int(rate * seconds)):
        request = next(requests)  # made before it is due
        await asyncio.sleep(max(0.0, start + number / rate - loop.time()))
        tasks.append(asyncio.ensure_future(one(request)))
    async with asyncio.timeout(PATIENCE_S):
        answers = await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    return answers


async def closed_loop(port: int, requests: Iterator[bytes], connections: int, seconds: float) -> tuple[int, float]:
    """Keep `connections` busy for so long: requests answered, and the seconds that it took. Raises BadAnswer."""
    start = perf_counter()
    prepared = [next(requests) for _ in range(512)]  # making them in time would cost more than sending them

    async def one(offset: int) -> int:
        connection, count = await Connection.open(port), 0
        while perf_counter() - start < seconds:
            await connection.send(prepared[(offset + count * connections) % len(prepared)])
            count += 1
        connection.close()
        return count

    start = perf_counter()
    counts = await asyncio.gather(*(one(offset) for offset in range(connections)))
    return sum(counts), perf_counter() - start
