"""Calling a fleet's router."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.e2e.oracle import Oracle

WORDS = range(10, 500)  # token ids of ordinary text in the synthetic vocabulary


def random_ids(rng: random.Random, count: int) -> list[int]:
    """A prompt of `count` tokens."""
    return [rng.choice(WORDS) for _ in range(count)]


class Client:
    """Completions by token ids, greedy and with log-probabilities."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and JSON of an answer."""
        async with self._session.post(self._url + path, json=body) as answer:
            return answer.status, await answer.json()

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON of a page."""
        async with self._session.get(self._url + path) as answer:
            return answer.status, await answer.json()

    async def complete(
        self, module: str, prompt: Sequence[int] | list[list[int]], max_tokens: int, **fields: Any
    ) -> dict[str, Any]:
        """The answer to a completion request that must succeed."""
        body = {"model": module, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "logprobs": 1}
        status, answer = await self.post("/v1/completions", body | {"return_token_ids": True} | fields)
        assert status == 200, answer
        return answer

    async def chat(self, module: str, messages: list[dict[str, Any]], max_tokens: int, **fields: Any) -> dict[str, Any]:
        """The answer to a chat request that must succeed."""
        body = {"model": module, "messages": messages, "max_tokens": max_tokens, "temperature": 0, "logprobs": True}
        status, answer = await self.post("/v1/chat/completions", body | {"return_token_ids": True} | fields)
        assert status == 200, answer
        return answer

    async def check(self, oracle: Oracle, module: str, prompt: list[int], max_tokens: int) -> list[int]:
        """Ask, compare with the reference, and return the answer's tokens."""
        answer = await self.complete(module, prompt, max_tokens)
        expected = oracle.answer(module, prompt, max_tokens)
        oracle.check_choice(expected, answer["choices"][0])
        usage = answer["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (len(prompt), len(expected.tokens))
        return expected.tokens


@asynccontextmanager
async def client_of(url: str, key: str = "none") -> AsyncIterator[Client]:
    """A client of the router at `url`."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)  # comparing takes longer than a server keeps alive
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        yield Client(url, session)


async def agent_session(
    client: Client, oracle: Oracle, modules: Sequence[str], *, seed: int, turns: int, max_tokens: int
) -> int:
    """A growing context that modules answer in turn: each answer and something new become the next prompt.

    Every answer is compared with the reference. Returns the number of requests.
    """
    rng = random.Random(seed)
    context = random_ids(rng, rng.randrange(1, 120))
    for turn in range(turns):
        module = modules[turn % len(modules)]
        context = context + await client.check(oracle, module, context, max_tokens)
        context = context + random_ids(rng, rng.randrange(1, 30))
    return turns


async def agent_sessions(
    client: Client, oracle: Oracle, modules: Sequence[str], *, sessions: int, turns: int, max_tokens: int, seed: int = 0
) -> int:
    """Several such sessions at once. Returns the number of requests."""
    counts = await asyncio.gather(
        *(
            agent_session(client, oracle, modules, seed=seed + number, turns=turns, max_tokens=max_tokens)
            for number in range(sessions)
        )
    )
    return sum(counts)


async def sixteen_at_once(client: Client, oracle: Oracle, modules: Sequence[str]) -> None:
    """Requests of several lengths, dealt out over the modules, that are answered in the same batches."""
    rng = random.Random(16)
    prompts = [random_ids(rng, rng.randrange(1, 300)) for _ in range(16)]
    await asyncio.gather(
        *(client.check(oracle, modules[i % len(modules)], prompt, 16) for i, prompt in enumerate(prompts))
    )
