"""With one KV pool answers are the reference's too, whatever becomes of the servers that lend and read.

The pools are small: prompts are longer than a decode server's, and a few fill the prefill server's. Pages of 1 token:
tests/engine/onepool/test_decode.py.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from psserve.engine.versions import ONE_POOL, installed_sglang
from psserve.zoo import Zoo
from psserve.zoo.synthetic.shapes import Architecture
from tests.e2e.client import agent_sessions, client_of, random_ids, sixteen_at_once
from tests.e2e.conftest import MODULES
from tests.e2e.fleet import RunningFleet, counter, launched, load_of, wait_idle
from tests.e2e.one_pool import ARGUMENTS, CHUNK, CONFIG, PROMPT, flood, reference, stopped_in_an_answer
from tests.e2e.oracle import Oracle
from tests.e2e.served import Served, Setting
from tests.e2e.watching import await_whole, check, pids, scheduler
from tests.waiting import PATIENCE_S, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(installed_sglang() not in ONE_POOL, reason="one KV pool: not with this release of SGLang yet"),
]


@pytest.fixture(scope="module")
def served(
    zoo_of: Callable[[Architecture], Zoo],
    oracle_of: Callable[[Architecture], Oracle],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    config = tmp_path_factory.mktemp("config") / "fleet.toml"
    config.write_text(CONFIG)
    with launched(zoo_of("qwen3").path, "--config", str(config), *ARGUMENTS) as fleet:
        yield Served(fleet, oracle_of("qwen3"), Setting("qwen3", 16, CHUNK, True, ARGUMENTS, CONFIG))
        wait_idle(fleet)
        until(lambda: leases(fleet) == 0)


@pytest.fixture
def whole(served: Served) -> Served:
    """The fleet, whole again."""
    await_whole(served.fleet)
    return served


def leases(fleet: RunningFleet) -> float:
    return counter(fleet, "prefill-0", "psserve_kv_leases")


def await_replaced(fleet: RunningFleet, server: str, before: Mapping[str, int | None]) -> None:
    """Wait until another process serves in place of a server that ended."""
    until(lambda: pids(fleet)[server] not in (None, before[server]))
    await_whole(fleet)


async def test_growing_agent_contexts_that_alternate_modules(served: Served) -> None:
    async with client_of(served.url) as client:
        await agent_sessions(client, served.oracle, MODULES, sessions=4, turns=8, max_tokens=8)


async def test_sixteen_at_once(served: Served) -> None:
    async with client_of(served.url) as client:
        await sixteen_at_once(client, served.oracle, MODULES)


async def test_prompts_at_the_edges_of_pages_and_chunks(served: Served) -> None:
    rng = random.Random(1)
    async with client_of(served.url) as client:
        for length in (1, 2, 15, 16, 17, 18, 33, CHUNK, CHUNK + 1, CHUNK + 2):
            prompt = random_ids(rng, length)
            for module in MODULES[:2]:
                await client.check(served.oracle, module, prompt, 6)


def test_a_context_that_every_module_reads_is_stored_once(whole: Served) -> None:
    prompt = random_ids(random.Random(2), 1024)
    wait_idle(whole.fleet)
    until(lambda: leases(whole.fleet) == 0)
    requests.post(f"{whole.fleet.worker_url('prefill-0')}/flush_cache", headers=whole.fleet.auth).raise_for_status()
    with ThreadPoolExecutor(len(MODULES)) as threads:
        asked = [threads.submit(check, whole.fleet, whole.oracle, module, prompt) for module in MODULES]
        for one in asked:
            one.result()
    wait_idle(whole.fleet)
    until(lambda: kept(whole.fleet) == 1008)  # whole pages of 1,023 tokens


def kept(fleet: RunningFleet) -> float:
    """Tokens of KV that all servers keep for whoever asks next."""
    return sum(counter(fleet, worker["name"], "sglang:kv_evictable_tokens") for worker in fleet.config["workers"])


async def test_four_at_a_time_a_module_of_prompts_longer_than_its_servers_pool(served: Served) -> None:
    """Their beginning is common, or the prefill server's pool would not hold them all."""
    rng = random.Random(9)
    beginning = random_ids(rng, PROMPT - 30)
    asked = [(module, beginning + random_ids(rng, 30)) for module in MODULES * 4]
    async with client_of(served.url) as client:
        await asyncio.gather(*(client.check(served.oracle, module, prompt, 40) for module, prompt in asked))


def test_lent_pages_do_not_change_while_others_fill_the_pool(whole: Served) -> None:
    prompt = random_ids(random.Random(3), PROMPT)
    with stopped_in_an_answer(whole.fleet, prompt) as answer:
        flood(whole.fleet)
        until(lambda: counter(whole.fleet, "prefill-0", "psserve_kv_lease_tokens") == PROMPT - 1)
        assert leases(whole.fleet) == 1
        until(lambda: load_of(whole.fleet, "prefill-0")["num_used_tokens"] == (PROMPT - 1) // 16 * 16)
    assert answer.whole() == reference(whole.oracle, "alpha", prompt)
    until(lambda: leases(whole.fleet) == 0)


def test_a_readers_end_ends_its_leases(whole: Served) -> None:
    before = pids(whole.fleet)
    with stopped_in_an_answer(whole.fleet, random_ids(random.Random(4), PROMPT)):
        until(lambda: leases(whole.fleet) == 1)
        scheduler(whole.fleet, "decode-alpha-0").kill()
        killed = time.monotonic()
        until(lambda: leases(whole.fleet) == 0)
        print(f"leases of a reader that was killed: back after {time.monotonic() - killed:.2f} s")
    await_replaced(whole.fleet, "decode-alpha-0", before)
    assert pids(whole.fleet)["prefill-0"] == before["prefill-0"]
    check(whole.fleet, whole.oracle, "alpha", random_ids(random.Random(5), PROMPT))


def test_an_answer_that_is_read_from_a_prefill_server_that_ended_goes_on(whole: Served) -> None:
    before = pids(whole.fleet)
    prompt = random_ids(random.Random(6), PROMPT)
    with stopped_in_an_answer(whole.fleet, prompt) as answer:
        lender = scheduler(whole.fleet, "prefill-0")
        lender.kill()
        lender.wait(PATIENCE_S)
    assert answer.whole() == reference(whole.oracle, "alpha", prompt)
    await_replaced(whole.fleet, "prefill-0", before)
    for module in MODULES:
        check(whole.fleet, whole.oracle, module, prompt)
