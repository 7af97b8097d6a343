"""Every architecture that can be served: served answers are the reference's.

One small fleet each: a prefill server and two modules, one of them a merged LoRA adapter; pages of 16 tokens, prompts
computed in chunks of 64. What is marked `long` runs in `make test-bases` alone, which writes docs/bases.md: the longer
part of the list, and the architectures of which all of test_exactness.py is tested.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from psserve.zoo import Zoo
from psserve.zoo.checkpoints.architectures import TABLE
from psserve.zoo.synthetic.shapes import Architecture
from tests.e2e.client import agent_sessions, client_of, random_ids
from tests.e2e.fleet import RunningFleet, counter, launched
from tests.e2e.oracle import Oracle

pytestmark = pytest.mark.e2e

PAGE, CHUNK = 16, 64
MODULES = ("alpha", "beta")
HERE = "tests/e2e/test_bases.py"


class Served(NamedTuple):
    """A running fleet and what it must answer."""

    fleet: RunningFleet
    oracle: Oracle


PARAMETERS = [
    pytest.param(row.model_type, marks=[] if row.suite == HERE else [pytest.mark.long]) for row in TABLE.values()
]


@pytest.fixture(scope="module", params=PARAMETERS)
def served(
    request: pytest.FixtureRequest,
    zoo_of: Callable[[Architecture], Zoo],
    oracle_of: Callable[[Architecture], Oracle],
) -> Iterator[Served]:
    oracle = oracle_of(request.param)
    arguments = ("--modules", ",".join(MODULES), "--page-size", str(PAGE), "--chunked-prefill-size", str(CHUNK))
    with launched(zoo_of(request.param).path, *arguments) as fleet:
        yield Served(fleet, oracle)


async def test_growing_contexts_that_alternate_modules(served: Served) -> None:
    """Both modules' requests hit what either's made the base read."""
    async with client_of(served.fleet.url) as client:
        checked = await agent_sessions(client, served.oracle, MODULES, sessions=2, turns=6, max_tokens=8)
    assert checked == 12
    assert counter(served.fleet, "prefill-0", "sglang:cached_tokens_total") > 0


async def test_prompts_at_the_edges_of_pages_and_chunks(served: Served) -> None:
    """All at once, so that they share batches."""
    rng = random.Random(1)
    lengths = (1, 2, PAGE, PAGE + 1, CHUNK + 1, CHUNK + 2, 3 * CHUNK + 5)
    async with client_of(served.fleet.url) as client:
        prompts = [(module, random_ids(rng, length)) for length in lengths for module in MODULES]
        await asyncio.gather(*(client.check(served.oracle, module, prompt, 6) for module, prompt in prompts))


async def test_a_chat(served: Served) -> None:
    messages = [{"role": "user", "content": "How many apples are left?"}]
    prompt = served.oracle.chat_prompt(messages)
    async with client_of(served.fleet.url) as client:
        choice = (await client.chat("alpha", messages, 10))["choices"][0]
    assert choice["prompt_token_ids"] == prompt
    logprobs = [entry["logprob"] for entry in choice["logprobs"]["content"]]
    served.oracle.check_tokens(served.oracle.answer("alpha", prompt, 10), choice["response_token_ids"], logprobs)


@pytest.mark.long
async def test_many_contexts_that_alternate_modules(served: Served) -> None:
    async with client_of(served.fleet.url) as client:
        await agent_sessions(client, served.oracle, MODULES, sessions=8, turns=10, max_tokens=8, seed=100)


@pytest.mark.long
async def test_sixteen_at_once(served: Served) -> None:
    rng = random.Random(16)
    prompts = [random_ids(rng, rng.randrange(1, 300)) for _ in range(16)]
    async with client_of(served.fleet.url) as client:
        await asyncio.gather(
            *(client.check(served.oracle, MODULES[i % 2], prompt, 24) for i, prompt in enumerate(prompts))
        )


@pytest.mark.long
async def test_repeated_and_nested_prefixes(served: Served) -> None:
    prompt = random_ids(random.Random(2), 200)
    async with client_of(served.fleet.url) as client:
        for length in (200, 200, 64, 65, 63, 1, 199, 200):
            for module in MODULES:
                await client.check(served.oracle, module, prompt[:length], 6)


@pytest.mark.long
async def test_several_answers_to_one_prompt(served: Served) -> None:
    prompt = random_ids(random.Random(3), 50)
    expected = served.oracle.answer("alpha", prompt, 8)
    async with client_of(served.fleet.url) as client:
        answer = await client.complete("alpha", prompt, 8, n=3)
    for choice in answer["choices"]:
        served.oracle.check_choice(expected, choice)


@pytest.mark.long
async def test_a_prompt_goes_to_the_end_of_the_context_and_no_further(served: Served) -> None:
    """Where the base's keys would depend on how long a prompt is, the context ends before."""
    limit = served.oracle.zoo.base.context_length
    prompt = random_ids(random.Random(4), limit)
    async with client_of(served.fleet.url) as client:
        for module in MODULES:
            await client.check(served.oracle, module, prompt[: limit - 10], 6)
        status, answer = await client.post("/v1/completions", {"model": "alpha", "prompt": prompt, "max_tokens": 6})
    assert status == 400, answer
