"""Timed requests: through a fleet's router, and past it straight to a pair of its servers."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from psserve.bench.load.stream import RequestFailed, Streamed, stream
from psserve.bench.systems.fleet import RunningFleet

Body = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """A whole answer. `overhead_ms` is what the router says it added itself, where it says so."""

    seconds: float
    body: Mapping[str, Any]
    overhead_ms: float | None = None

    @property
    def prompt_tokens(self) -> int:
        return int(self.body["usage"]["prompt_tokens"])


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

    async def stream(self, path: str, body: Body) -> tuple[float, int]:
        """One streamed request through the router: seconds until its first token, and its cached tokens."""
        streamed, sent = Streamed(), time.perf_counter()
        body = body | {"stream": True, "stream_options": {"include_usage": True}}
        await stream(self._session, self._fleet.url + path, body, {"Content-Type": "application/json"}, streamed)
        return streamed.moments[0] - sent, streamed.counts.cached

    async def pair(self, path: str, module: str, prefill: Body, decode: Body) -> tuple[Answer, Answer]:
        """One request on both of its servers, past the router: (prefill answer, decode answer)."""
        source = self._fleet.worker("prefill-0")
        served = next(entry for entry in self._fleet.config["modules"] if entry["name"] == module)
        if served["adapter"] is not None:
            decode = decode | {"lora_path": served["adapter"]}
        pairing = {
            "rid": secrets.token_hex(16),
            "bootstrap_host": source["host"],
            "bootstrap_port": source["bootstrap_port"],
            "bootstrap_room": secrets.randbelow(2**62) + 1,
        }
        auth = {"Authorization": f"Bearer {self._fleet.key}"}
        return await asyncio.gather(
            self._post(self._fleet.worker_url("prefill-0") + path, prefill | pairing, auth),
            self._post(self._fleet.worker_url(f"decode-{served['group'] or module}-0") + path, decode | pairing, auth),
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


def random_ids(rng: random.Random, count: int, vocab_size: int) -> list[int]:
    """`count` token ids, none of the first few, which tokenizers use for special tokens."""
    return [rng.randrange(16, vocab_size) for _ in range(count)]
