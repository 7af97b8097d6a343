"""The requests of the benchmark, as bytes on the wire: chats whose last message nobody has sent before."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

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
