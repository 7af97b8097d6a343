"""What a soak asks and must hear, and clients of all kinds.

Prompts share beginnings, and are answered by the reference. Clients wait, stream, want several answers, have no time,
leave, and send nonsense.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from psserve.contracts.sse import EventReader
from psserve.zoo import Zoo

WORDS = range(10, 500)  # token ids of ordinary text in the synthetic vocabulary
ANSWER_TOKENS = 24
BEGINNINGS = 6
PROMPTS = 24


@dataclass(frozen=True)
class Question:
    """A prompt for one module, and the tokens of the right answer."""

    module: str
    prompt: list[int]
    answer: list[int]


def make_questions(zoo: Zoo, modules: Sequence[str], rng: random.Random) -> list[Question]:
    """Every prompt for every module. Computes the answers by the reference, in this process."""
    import torch

    from psserve.training.reference import load_pair, reference_answer

    torch.set_num_threads(1)
    beginnings = [_ids(rng, rng.randrange(20, 160)) for _ in range(BEGINNINGS)]
    prompts = [beginnings[number % BEGINNINGS] + _ids(rng, rng.randrange(1, 60)) for number in range(PROMPTS)]
    questions = []
    for module in modules:
        base, decoder = load_pair(zoo, module)
        for prompt in prompts:
            right = reference_answer(base, decoder, prompt, ANSWER_TOKENS, stop_ids=zoo.base.eos_token_ids)
            questions.append(Question(module, prompt, list(right.tokens)))
    return questions


def _ids(rng: random.Random, count: int) -> list[int]:
    return [rng.choice(WORDS) for _ in range(count)]


URL = "/v1/completions"
TOLERATED = {408, 429, 502, 503, 504}
"""While parts of the fleet die, requests may fail with these."""
KINDS = {"whole": 45, "stream": 20, "several": 6, "hasty": 5, "leave": 12, "bad": 12}
BAD: tuple[Any, ...] = (
    b"{",
    b"[1]",
    b"\xff",
    b"[" * 100,
    b'{"model": "alpha", "prompt": "x", "temperature": NaN}',
    {"model": "nobody", "prompt": "x"},
    {"model": None, "prompt": "x"},
    {"prompt": [1, -1]},
    {"prompt": [10**9]},
    {"prompt": "x", "max_tokens": 0},
    {"prompt": "x", "temperature": -1},
    {"prompt": "x", "n": 10**6},
    {"prompt": "x", "bootstrap_room": 1},
    {"prompt": "x", "regex": "("},
    {"prompt": list(range(10, 210)) * 60},
)


@dataclass
class Tally:
    """What became of the requests."""

    results: Counter[str] = field(default_factory=Counter)
    """"kind result" -> how often; result: right, left, refused, a tolerated status, or connection."""
    wrong: list[str] = field(default_factory=list)
    """Whatever must not be, in words."""
    slowest_s: float = 0.0


class Traffic:
    """So many clients in a closed loop until `stop`. `over` is set once `most` requests have ended."""

    def __init__(
        self, url: str, questions: Sequence[Question], bound_s: float, seed: int, most: int | None = None
    ) -> None:
        """`bound_s`: every request must have ended by then."""
        self.tally = Tally()
        self.over = asyncio.Event()
        self._most = most
        self._url = url
        self._questions = questions
        self._bound_s = bound_s
        self._seed = seed
        self._texts: dict[int, str] = {}  # of answers whose tokens were right: streams have no token ids
        self._clients: list[asyncio.Task[None]] = []
        self._stopped = False
        self._kinds: dict[str, Callable[..., Awaitable[str]]] = {
            "whole": self._whole,
            "stream": self._stream,
            "several": self._several,
            "hasty": self._hasty,
            "leave": self._leave,
            "bad": self._bad,
        }

    def start(self, clients: int) -> None:
        self._stopped = False
        self._clients = [asyncio.create_task(self._client(self._seed + number)) for number in range(clients)]

    async def stop(self) -> None:
        """Let every client end its request."""
        self._stopped = True
        await asyncio.gather(*self._clients)
        self._seed += len(self._clients)

    async def _client(self, seed: int) -> None:
        rng = random.Random(seed)
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as http:
            while not self._stopped:
                await self._request(http, rng)

    async def _request(self, http: aiohttp.ClientSession, rng: random.Random) -> None:
        (kind,) = rng.choices(list(KINDS), list(KINDS.values()))
        number = rng.randrange(len(self._questions))
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._bound_s):
                result = await self._kinds[kind](http, rng, number)
        except TimeoutError:
            result = "not ended"
            self.tally.wrong.append(f"{kind}: no end after {self._bound_s:g} s")
        except aiohttp.ClientError:
            result = "connection"  # the router was killed
            await asyncio.sleep(0.2)
        self.tally.slowest_s = max(self.tally.slowest_s, time.monotonic() - started)
        self.tally.results[f"{kind} {result}"] += 1
        if self._most is not None and self.tally.results.total() >= self._most:
            self.over.set()
        if result.isdigit():
            await asyncio.sleep(rng.uniform(0.1, 0.5))

    def _body(self, question: Question, **fields: Any) -> dict[str, Any]:
        body = {"model": question.module, "prompt": question.prompt, "max_tokens": ANSWER_TOKENS, "temperature": 0}
        return body | {"return_token_ids": True} | fields

    async def _whole(
        self, http: aiohttp.ClientSession, rng: random.Random, number: int, n: int = 1, **headers: str
    ) -> str:
        question = self._questions[number]
        async with http.post(self._url + URL, json=self._body(question, n=n), headers=headers) as answer:
            document = await answer.json()
        if answer.status != 200:
            return self._failed(answer.status, document)
        for choice in document["choices"]:
            if choice["token_ids"] != question.answer:
                self.tally.wrong.append(f"{question.module}, prompt {number}: {choice['token_ids']}")
                return "wrong"
            self._texts[number] = choice["text"]
        return "right"

    async def _several(self, http: aiohttp.ClientSession, rng: random.Random, number: int) -> str:
        return await self._whole(http, rng, number, n=rng.randrange(2, 4))

    async def _hasty(self, http: aiohttp.ClientSession, rng: random.Random, number: int) -> str:
        return await self._whole(http, rng, number, **{"x-request-timeout": f"{rng.uniform(0.05, 0.5):.3f}"})

    async def _stream(self, http: aiohttp.ClientSession, rng: random.Random, number: int) -> str:
        question = self._questions[number]
        text, error, reader = "", None, EventReader()
        async with http.post(self._url + URL, json=self._body(question, stream=True)) as answer:
            if answer.status != 200:
                return self._failed(answer.status, await answer.json())
            async for piece in answer.content.iter_any():
                for event in reader.feed(piece):
                    error = error or event.get("error")
                    text += "".join(choice["text"] for choice in event.get("choices", ()))
        if error is not None:
            return "error event" if not reader.ended else self._wrong("an error event and [DONE]")
        if not reader.ended:
            return self._wrong("a stream without end")
        if text != self._texts.get(number, text):
            return self._wrong(f"{question.module}, prompt {number}, streamed: {text!r}")
        return "right"

    async def _leave(self, http: aiohttp.ClientSession, rng: random.Random, number: int) -> str:
        body = self._body(self._questions[number], stream=rng.random() < 0.5)
        asking = asyncio.create_task(self._post_and_read(http, body))
        await asyncio.wait((asking,), timeout=rng.uniform(0.0, 0.3))
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        return "left"

    async def _post_and_read(self, http: aiohttp.ClientSession, body: dict[str, Any]) -> None:
        async with http.post(self._url + URL, json=body) as answer:
            await answer.read()

    async def _bad(self, http: aiohttp.ClientSession, rng: random.Random, number: int) -> str:
        bad = rng.choice(BAD)
        fields = bad if isinstance(bad, bytes) else json.dumps({"model": self._questions[number].module} | bad).encode()
        async with http.post(self._url + URL, data=fields, headers={"Content-Type": "application/json"}) as answer:
            document = await answer.json()
        if 400 <= answer.status < 500 and answer.status not in TOLERATED:
            return "refused"
        return self._failed(answer.status, document)

    def _failed(self, status: int, document: Any) -> str:
        if status in TOLERATED and set(document.get("error", ())) == {"message", "type", "param", "code"}:
            return str(status)
        return self._wrong(f"status {status}: {str(document)[:200]}")

    def _wrong(self, what: str) -> str:
        self.tally.wrong.append(what)
        return "wrong"
