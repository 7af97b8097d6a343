"""The one rule holds when SGLang retracts, aborts, runs out of KV or is split; and nothing leaks.

SGLang checks its pools whenever it is idle, and a server that leaks a slot ends itself.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from psserve.engine.versions import HITS_SINCE, installed_sglang, number
from psserve.zoo import Zoo
from psserve.zoo.synthetic.shapes import Architecture
from tests.e2e.client import Client, agent_sessions, client_of, random_ids
from tests.e2e.conftest import MODULES
from tests.e2e.fleet import RunningFleet, counter, launched, wait_idle
from tests.e2e.given import ask, check_given, given_answers
from tests.e2e.oracle import Oracle
from tests.e2e.transfer import IS_SHARED

pytestmark = pytest.mark.e2e

FORCED_RETRACTION = {
    "SGLANG_TEST_RETRACT": "true",
    "SGLANG_TEST_RETRACT_INTERVAL": "4",
    "SGLANG_DEBUG_MEMORY_POOL": "1",
}
RETRACTED = "sglang:num_retracted_requests_total"
SERVERS = ("prefill-0", "decode-alpha-0", "decode-beta-0")


def pids(fleet: RunningFleet) -> list[int]:
    return [fleet.pid(server) for server in SERVERS]


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("qwen3", ("--page-size", "16", "--chunked-prefill-size", "64")),
        ("llama", ("--page-size", "1", "--", "--disable-overlap-schedule")),
    ],
    ids=["pages-of-16-overlap", "pages-of-1-no-overlap"],
)
async def test_retraction_and_aborts(
    architecture: Architecture,
    arguments: tuple[str, ...],
    zoo_of: Callable[[Architecture], Zoo],
    oracle_of: Callable[[Architecture], Oracle],
) -> None:
    zoo, oracle = zoo_of(architecture).path, oracle_of(architecture)
    with launched(zoo, "--modules", "alpha,beta", *arguments, env=FORCED_RETRACTION) as fleet:
        before = pids(fleet)
        async with client_of(fleet.url) as client:
            await agent_sessions(client, oracle, MODULES[:2], sessions=10, turns=3, max_tokens=60)
            given = given_answers(oracle, 12, seed=31)
            choices, *_ = await asyncio.gather(
                ask(client, "alpha", given), *(client.check(oracle, "alpha", [token], 40) for token in range(10, 40))
            )
            check_given(oracle, "alpha", given, choices)
            wait_idle(fleet)
            assert sum(counter(fleet, server, RETRACTED) for server in SERVERS[1:]) > 10
            left, _ = await asyncio.gather(
                leave_early(client, random.Random(1), requests=60),
                agent_sessions(client, oracle, MODULES[:2], sessions=3, turns=3, max_tokens=40, seed=100),
            )
            assert left > 20
            wait_idle(fleet)
            await agent_sessions(client, oracle, MODULES[:2], sessions=2, turns=2, max_tokens=20, seed=200)
        wait_idle(fleet)
        assert pids(fleet) == before


COUNTS_HITS = number(installed_sglang() or "0") >= number(HITS_SINCE)
"""Where it does not, the other policies are refused (tests/engine/test_versions.py)."""


@pytest.fixture(scope="module", params=["lru", "slru"] if COUNTS_HITS else ["lru"])
def policy(request: pytest.FixtureRequest) -> str:
    """What a prefill server's full pool gives up first."""
    return str(request.param)


@pytest.fixture(scope="module")
def small(
    policy: str, zoo_of: Callable[[Architecture], Zoo], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningFleet]:
    """A fleet of one module with 2,048 tokens of KV on either side, over a zoo that no other test serves meanwhile."""
    folder = tmp_path_factory.mktemp("small")
    zoo, config = folder / "zoo", folder / "fleet.toml"
    shutil.copytree(zoo_of("qwen3").path, zoo, ignore=shutil.ignore_patterns(".run"))
    config.write_text(f"prefill = {{kv_tokens = 2048}}\ndecode = {{kv_tokens = {512 if IS_SHARED else 2048}}}")
    arguments = ("--modules", "alpha", "--config", str(config), "--eviction-policy", policy)
    with launched(zoo, *arguments, "--", "--num-reserved-decode-tokens", "16") as fleet:
        yield fleet


async def test_more_requests_than_the_kv_pool_holds(
    small: RunningFleet, oracle_of: Callable[[Architecture], Oracle]
) -> None:
    """16 requests of up to 300 tokens each over 2,048 tokens of KV: they wait, are retracted, evict, and are right.

    The router lets in what it expects to fit; short answers first have it expect too little.
    """
    oracle = oracle_of("qwen3")
    rng = random.Random(3)
    prompts = [random_ids(rng, rng.randrange(100, 200)) for _ in range(16)]
    async with client_of(small.url) as client:
        for max_tokens in (*[1] * 9, 120, 120):
            await asyncio.gather(*(client.check(oracle, "alpha", prompt, max_tokens) for prompt in prompts))
    wait_idle(small)
    assert counter(small, "decode-alpha-0", RETRACTED) > 0


async def test_a_context_that_came_again_outlives_what_came_once_by_one_policy(
    small: RunningFleet, policy: str, oracle_of: Callable[[Architecture], Oracle]
) -> None:
    """That is what `eviction_policy = "slru"` is for: by least recent use it goes first."""
    oracle, rng = oracle_of("qwen3"), random.Random(5)
    context = random_ids(rng, 200)
    async with client_of(small.url) as client:
        for prompt in (context, context, *(random_ids(rng, 150) for _ in range(20))):
            await client.check(oracle, "alpha", prompt, 4)
        answer = await client.complete("alpha", context, 4)
    oracle.check_choice(oracle.answer("alpha", context, 4), answer["choices"][0])
    is_kept = answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 192
    assert is_kept == (policy == "slru")


async def test_servers_split_in_two(
    zoo_of: Callable[[Architecture], Zoo], oracle_of: Callable[[Architecture], Oracle], tmp_path: Path
) -> None:
    """Tensor parallel on both sides: each rank has one of the two key-value heads, and hands that over."""
    config = tmp_path / "fleet.toml"
    config.write_text("[prefill]\ntp = 2\n[decode]\ntp = 2\n")
    arguments = ("--modules", "alpha", "--config", str(config), "--chunked-prefill-size", "64")
    with launched(zoo_of("qwen3").path, *arguments) as fleet:
        async with client_of(fleet.url) as client:
            await agent_sessions(client, oracle_of("qwen3"), ["alpha"], sessions=3, turns=3, max_tokens=16)
        wait_idle(fleet)
        for server in SERVERS[:2]:
            assert " TP1]" in fleet.log(server)


async def leave_early(client: Client, rng: random.Random, requests: int, modules: Sequence[str] = MODULES[:2]) -> int:
    """Requests whose client goes away at a random moment: waiting, in prefill, in transfer, in decode.

    Returns how many did.
    """
    left = 0
    for _ in range(requests):
        prompt = random_ids(rng, rng.choice([1, 20, 200, 1500]))
        try:
            async with asyncio.timeout(rng.random() * 0.4):
                await client.complete(rng.choice(modules), prompt, 200)
        except TimeoutError:
            left += 1
    return left
