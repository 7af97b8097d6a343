"""Canned workers: `python upstream.py [--interval SECONDS]`. One prefill and one decode server that only speak HTTP.

Bare protocols without an HTTP library, because a worker that costs as much as the router hides what the router costs.
Every prompt has PROMPT_TOKENS tokens; what a body asks is found by searching it for bytes. Prints the two ports.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from functools import partial
from typing import Any, cast

import uvloop

from psserve.rule import prefill_len

PROMPT_TOKENS = 100
LENGTH = re.compile(rb"content-length: *(\d+)", re.I)
MAX_TOKENS = re.compile(rb'"max_(?:completion_)?tokens": ?(\d+)')
STREAM = re.compile(rb'"stream": ?true')
HEAD = b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
IDENTITY = {"id": "0" * 32, "created": 1764000000, "model": "math"}


class Worker(asyncio.Protocol):
    """One connection to a worker, which answers one request after the other."""

    def __init__(self, role: str, interval: float) -> None:
        """`interval`: seconds between the events of a stream; 0: all at once."""
        self._role = role
        self._interval = interval
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._next: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._next is not None:
            self._next.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (head := self._buffer.find(b"\r\n\r\n")) >= 0:
            found = LENGTH.search(self._buffer, 0, head)
            end = head + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < end:
                return
            is_post = self._buffer.startswith(b"POST")
            body, self._buffer = self._buffer[head + 4 : end], self._buffer[end:]
            self._answer(body) if is_post else self._write(NOT_FOUND)

    def _answer(self, body: bytes) -> None:
        found = MAX_TOKENS.search(body)
        tokens = int(found[1]) if found else 1
        if self._role == "decode" and STREAM.search(body):
            self._write(STREAM_HEAD)
            self._stream(tokens)
        else:
            answer = ANSWERS[self._role]
            self._write(HEAD % len(answer) + answer)

    def _stream(self, left: int) -> None:
        """Send the next of `left` events of output, and see to the others."""
        if not self._interval:
            self._write(EVENT * left + END)
        elif left == 0:
            self._write(END)
        else:
            self._write(EVENT)
            self._next = asyncio.get_running_loop().call_later(self._interval, self._stream, left - 1)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


def usage(role: str) -> dict[str, Any]:
    """As the split has it: the base computes all of a prompt but its last token."""
    prompt, answer = (prefill_len(PROMPT_TOKENS), 1) if role == "prefill" else (PROMPT_TOKENS, 16)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": 64},
        "reasoning_tokens": 0,
    }


def whole(role: str) -> bytes:
    message = {"role": "assistant", "content": "of the " * 8, "reasoning_content": None, "tool_calls": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "length", "matched_stop": None}
    document = IDENTITY | {"object": "chat.completion", "choices": [choice], "usage": usage(role)}
    return json.dumps(document, separators=(",", ":")).encode()


def chunk(document: dict[str, Any]) -> bytes:
    """An event of a stream, as a chunk of HTTP's."""
    text = json.dumps(IDENTITY | {"object": "chat.completion.chunk"} | document, separators=(",", ":"))
    return framed(f"data: {text}\n\n".encode())


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def choice(delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason, "matched_stop": None}]}


ANSWERS = {role: whole(role) for role in ("prefill", "decode")}
EVENT = chunk(choice({"role": None, "content": " word", "reasoning_content": None, "tool_calls": None}, None))
END = (
    chunk(choice({"content": ""}, "length"))
    + chunk({"choices": [], "usage": usage("decode")})
    + framed(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)


async def serve(interval: float) -> None:
    loop = asyncio.get_running_loop()
    ports = []
    for role in ("prefill", "decode"):
        server = await loop.create_server(partial(Worker, role, interval), "127.0.0.1", 0, backlog=4096)
        ports.append(server.sockets[0].getsockname()[1])
    print(*ports, flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve canned answers as a prefill and a decode server.")
    parser.add_argument("--interval", type=float, default=0.0, help="seconds between the events of a stream")
    uvloop.run(serve(parser.parse_args().interval))


if __name__ == "__main__":
    main()
