"""An OpenAI-compatible server that streams the same word at a steady pace: cheap enough to put a client to the test.

`python trivial_server.py TOKENS_PER_S` prints its port and serves one client until its stdin is closed.
"""

from __future__ import annotations

import asyncio
import json
import sys

MODELS = b'{"object": "list", "data": [{"id": "trivial", "object": "model"}]}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WORD = b'data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": null}]}\n\n'


def chunk(data: bytes) -> bytes:
    """One piece of a body in chunked transfer encoding."""
    return b"%x\r\n%s\r\n" % (len(data), data)


PIECE = chunk(WORD)


class Connection(asyncio.Protocol):
    """One client's connection; one request at a time."""

    streaming: set[Connection] = set()  # noqa: RUF012 # one server a process

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert hasattr(transport, "write")
        self.transport, self.received, self.left, self.prompt_tokens, self.asked = transport, b"", 0, 0, 0

    def connection_lost(self, error: Exception | None) -> None:
        self.streaming.discard(self)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, blank, body = self.received.partition(b"\r\n\r\n")
        if not blank:
            return
        if head.startswith(b"GET"):
            self.received = body
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(MODELS), MODELS))
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) >= length:
            self.received = body[length:]
            self.begin(json.loads(body[:length]))

    def begin(self, body: dict[str, object]) -> None:
        messages = body["messages"]
        assert isinstance(messages, list)
        self.prompt_tokens = sum(len(str(message["content"]).split()) for message in messages)
        self.asked = self.left = int(str(body["max_tokens"]))
        self.transport.write(HEAD)
        self.streaming.add(self)

    def tick(self) -> None:
        """One more word, and after the last one the end."""
        self.left -= 1
        if self.left > 0:
            self.transport.write(PIECE)
            return
        usage = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.asked}
        last = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\ndata: [DONE]\n\n"
        self.transport.write(PIECE + chunk(last) + b"0\r\n\r\n")
        self.streaming.discard(self)


async def serve(tokens_per_s: float) -> None:
    """Serve until stdin ends. A tenth of the streams is served at a time, so that the client has no bursts to read."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = loop.run_in_executor(None, sys.stdin.read)
    groups, turn, due = 10, 0, loop.time()
    while not ended.done():
        due += 1 / tokens_per_s / groups
        await asyncio.sleep(max(0.0, due - loop.time()))
        for connection in [each for each in Connection.streaming if id(each) // 64 % groups == turn]:
            connection.tick()
        turn = (turn + 1) % groups


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(float(sys.argv[1])))
