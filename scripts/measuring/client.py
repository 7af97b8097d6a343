"""Timed requests: through a fleet's router, and past it straight to a pair of its servers."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from psserve.bench.systems.fleet import RunningFleet
from psserve.contracts.sse import EventReader

Body = dict[str, Any]


class RequestFailed(Exception):
    """A request that had to succeed did not."""


@dataclass(frozen=True)
class Answer:
    """A whole answer. `overhead_ms` is what the router says it added itself, where it says so."""

    seconds: float
    body: Mapping[str, Any]
    overhead_ms: float | None = None

    @property
    def prompt_tokens(self) -> int:
        return int(self.body["usage"]["prompt_tokens"])


@dataclass(frozen=True)
class Streamed:
    """A streamed answer: seconds until its first event, which the first token makes, and until its end."""

    first_s: float
    seconds: float
    cached_tokens: int


class Client:
    """One HTTP session to a fleet. A context manager; not for use by several threads."""

    def __init__(self, fleet: RunningFleet) -> None:
        self._fleet = fleet

    async def __aenter__(self) -> Client:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3.0)  # SGLang closes idle connections after 5 s
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=300))
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._session.close()

    async def post(self, path: str, body: Body) -> Answer:
        """One request through the router."""
        return await self._post(self._fleet.url + path, body, {})

    async def stream(self, path: str, body: Body) -> Streamed:
        """One streamed request through the router, with the usage that its end tells."""
        started = time.perf_counter()
        first, cached = None, 0
        body = body | {"stream": True, "stream_options": {"include_usage": True}}
        async with self._session.post(self._fleet.url + path, json=body) as response:
            if response.status != 200:
                raise RequestFailed(f"{path}: {response.status}: {await response.text()}")
            async for event in _events(response):
                if first is None and event.get("choices"):
                    first = time.perf_counter()
                usage = event.get("usage") or {}
                cached = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or cached)
        if first is None:
            raise RequestFailed(f"{path}: the stream ended without output")
        return Streamed(first - started, time.perf_counter() - started, cached)

    async def pair(self, path: str, module: str, prefill: Body, decode: Body) -> tuple[Answer, Answer]:
        """One request on both of its servers, past the router: (prefill answer, decode answer)."""
        source = self._fleet.worker("prefill-0")
        pairing = {
            "rid": secrets.token_hex(16),
            "bootstrap_host": source["host"],
            "bootstrap_port": source["bootstrap_port"],
            "bootstrap_room": secrets.randbelow(2**62) + 1,
        }
        auth = {"Authorization": f"Bearer {self._fleet.key}"}
        return await asyncio.gather(
            self._post(self._fleet.worker_url("prefill-0") + path, prefill | pairing, auth),
            self._post(self._fleet.worker_url(f"decode-{module}-0") + path, decode | pairing, auth),
        )

    async def _post(self, url: str, body: Body, headers: Mapping[str, str]) -> Answer:
        started = time.perf_counter()
        async with self._session.post(url, json=body, headers=headers) as response:
            payload = await response.read()
            seconds = time.perf_counter() - started
            if response.status != 200:
                raise RequestFailed(f"{url}: {response.status}: {payload[:500].decode(errors='replace')}")
            said = response.headers.get("x-psserve-router-overhead-ms")
        return Answer(seconds, json.loads(payload), float(said) if said else None)


async def completion_pair(client: Client, module: str, prompt: Sequence[int], max_tokens: int) -> float:
    """Seconds that both legs of a greedy `/v1/completions` by token ids take past the router (the slower leg)."""
    started = time.perf_counter()
    body = completion(module, prompt, max_tokens)
    await client.pair("/v1/completions", module, body | {"max_tokens": 1}, body)
    return time.perf_counter() - started


def completion(module: str, prompt: Sequence[int], max_tokens: int) -> Body:
    """The body of a greedy completion of exactly `max_tokens` tokens."""
    return {
        "model": module,
        "prompt": list(prompt),
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
    }


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Mapping[str, Any]]:
    reader = EventReader()
    async for piece in response.content.iter_any():
        for event in reader.feed(piece):
            if "error" in event:
                raise RequestFailed(str(event["error"]))
            yield event
