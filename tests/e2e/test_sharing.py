"""Sharing is visible: what one module's request computed and received, the next one does not again."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from psserve.zoo import Zoo
from psserve.zoo.synthetic.shapes import Architecture
from tests.e2e.client import Client, client_of, random_ids
from tests.e2e.fleet import RunningFleet, counter, launched, load_of, wait_idle
from tests.e2e.oracle import Oracle
from tests.e2e.transfer import copies_alone, shared_alone
from tests.fleet.manifests.cases import objects_of
from tests.grafana import panel_names
from tests.prometheus import answer, queries, target_labels
from tests.waiting import until

pytestmark = pytest.mark.e2e

PAGE = 16


@pytest.fixture(scope="module")
def fleet(zoo_of: Callable[[Architecture], Zoo]) -> Iterator[RunningFleet]:
    arguments = ("--modules", "alpha,beta", "--page-size", str(PAGE), "--serve-base", "--task-classifier", "base-model")
    with launched(zoo_of("qwen3").path, *arguments, "--default-module", "beta") as fleet:
        yield fleet


@pytest.fixture
def oracle(oracle_of: Callable[[Architecture], Oracle]) -> Oracle:
    return oracle_of("qwen3")


def computed(fleet: RunningFleet) -> float:
    """Prompt tokens that the prefill server has run the base on."""
    wait_idle(fleet)
    return counter(fleet, "prefill-0", "sglang:realtime_tokens_total", mode="prefill_compute")


def transferred(fleet: RunningFleet) -> float:
    """KV sent to decode servers, in tokens."""
    wait_idle(fleet)
    megabytes = counter(fleet, "prefill-0", "sglang:kv_transfer_total_mb_sum")
    memory = load_of(fleet, "prefill-0")["memory"]
    return megabytes / 1024 / memory["kv_cache_gb"] * memory["token_capacity"]


async def test_another_modules_prefill_is_reused(fleet: RunningFleet, oracle: Oracle) -> None:
    prompt = random_ids(random.Random(1), 1000)
    async with client_of(fleet.url) as client:
        start = computed(fleet)
        first = await client.complete("alpha", prompt, 4)
        middle = computed(fleet)
        second = await client.complete("beta", prompt, 4)
        end = computed(fleet)
        oracle.check_choice(oracle.answer("beta", prompt, 4), second["choices"][0])
    assert middle - start >= 999
    assert end - middle <= PAGE + 1
    assert first["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] >= 1000 - PAGE - 1


@copies_alone("no KV is sent")
async def test_a_second_turn_transfers_only_what_is_new(fleet: RunningFleet, oracle: Oracle) -> None:
    rng = random.Random(2)
    prompt = random_ids(rng, 1000)
    async with client_of(fleet.url) as client:
        start = transferred(fleet)
        answer = await client.check(oracle, "alpha", prompt, 8)
        middle = transferred(fleet)
        await client.check(oracle, "alpha", prompt + answer + random_ids(rng, 40), 8)
        end = transferred(fleet)
    assert middle - start >= 999 - PAGE
    assert end - middle <= len(answer) + 40 + 2 * PAGE


@copies_alone("no KV is sent")
async def test_a_module_new_to_a_context_receives_it_all(fleet: RunningFleet) -> None:
    prompt = random_ids(random.Random(3), 500)
    async with client_of(fleet.url) as client:
        await client.complete("alpha", prompt, 2)
        start = transferred(fleet)
        await client.complete("beta", prompt, 2)
        assert transferred(fleet) - start >= 499 - PAGE


@copies_alone("no KV is sent")
async def test_the_router_counts_what_the_servers_did(fleet: RunningFleet) -> None:
    prompt = random_ids(random.Random(4), 500)
    async with client_of(fleet.url) as client:
        await client.complete("alpha", prompt, 2)
        sent, start = transferred(fleet), router_counts(fleet, "beta")
        first = await client.complete("beta", prompt, 2)
        sent, middle = transferred(fleet) - sent, router_counts(fleet, "beta")
        await client.complete("beta", prompt, 2)
        end = router_counts(fleet, "beta")
    cached = first["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert middle - start == Counter(shared_prefix=cached, kv_transferred=499)
    assert abs(sent - 499) <= 2 * PAGE  # whole pages are sent, and the server's sizes are rounded
    again = end - middle
    assert again["decode_cached"] >= 499 - PAGE
    assert again["decode_cached"] + again["kv_transferred"] == 499


@shared_alone("else KV is sent")
async def test_the_unfinished_page_alone_is_copied(fleet: RunningFleet) -> None:
    prompt = random_ids(random.Random(4), 500)
    async with client_of(fleet.url) as client:
        await client.complete("alpha", prompt, 2)
        start = router_counts(fleet, "beta")
        answer = await client.complete("beta", prompt, 2)
        cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert router_counts(fleet, "beta") - start == Counter(
            shared_prefix=cached, decode_cached=499 // PAGE * PAGE, kv_transferred=499 % PAGE
        )
    assert transferred(fleet) == 0


def test_the_servers_metrics_are_on_one_page(fleet: RunningFleet) -> None:
    page = requests.get(f"{fleet.url}/engine_metrics", timeout=60).text
    families = {family.name: family for family in text_string_to_metric_families(page)}
    samples = [sample for name, family in families.items() if name.startswith("sglang:") for sample in family.samples]
    assert {"prefill-0", "decode-alpha-0", "decode-beta-0"} <= {sample.labels["worker"] for sample in samples}
    assert panel_names("sglang:") <= {sample.name for sample in samples}


async def test_what_scales_servers_is_on_the_routers_page(fleet: RunningFleet) -> None:
    """As KEDA would ask for it, while requests run and after them."""
    about = {"max_replicas": 2, "service_monitor": True}
    objects = objects_of(fleet.zoo, {"modules": ["alpha", "beta"]}, about)
    prefill, alpha, beta = queries(objects)

    def asked(*some: str) -> list[float]:
        page = requests.get(f"{fleet.url}/metrics", timeout=60).text
        return [answer(query, (page, target_labels(objects))) for query in some]

    assert asked(prefill, alpha, beta) == [0, 0, 0]
    pools = {worker["module"]: worker["kv_tokens"] for worker in fleet.config["workers"]}
    room = [query.replace("demand", "kv") for query in (alpha, beta)]
    assert asked(*room) == [pools["alpha"], pools["beta"]]
    rng = random.Random(6)
    seen = [0.0, 0.0, 0.0]

    async def ask(client: Client) -> None:
        while not (seen[0] and seen[1]):
            await client.complete("alpha", random_ids(rng, 400), 20)

    async with client_of(fleet.url) as client:
        asking = [asyncio.create_task(ask(client)) for _ in range(4)]
        while not any(task.done() for task in asking):
            seen = list(map(max, seen, await asyncio.to_thread(asked, prefill, alpha, beta)))
        await asyncio.gather(*asking)
    assert seen[0] <= 4 * 400
    least = 20 if fleet.config["one_pool"] else 400  # with one pool, prompts take up none of a decode server's
    assert least <= seen[1] <= 4 * 420
    assert seen[2] == 0
    await asyncio.to_thread(until, lambda: asked(prefill, alpha) == [0, 0])


def router_counts(fleet: RunningFleet, module: str) -> Counter[str]:
    """What the router says of a module's KV, in tokens."""
    page = requests.get(f"{fleet.url}/metrics", timeout=60).text
    counts: Counter[str] = Counter()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            for name in ("shared_prefix", "decode_cached", "kv_transferred"):
                if sample.name == f"psserve_{name}_tokens_total" and sample.labels["module"] == module:
                    counts[name] = int(sample.value)
    return counts


def test_base_classifies_requests_for_auto_and_shares_its_instruction(fleet: RunningFleet) -> None:
    """Random weights choose at random: what counts is that the grammar holds them to a module, or to none."""
    message = {"role": "user", "content": "How many apples are left?"}
    body = {"model": "auto", "messages": [message], "max_tokens": 2}
    start = computed(fleet)
    first = requests.post(f"{fleet.url}/v1/chat/completions", json=body, timeout=60)
    middle = computed(fleet)
    message["content"] = "Write a poem."
    second = requests.post(f"{fleet.url}/v1/chat/completions", json=body, timeout=60)
    end = computed(fleet)
    for response in (first, second):
        chosen = response.json()["usage"]["psserve_task"]
        assert chosen["module"] == response.headers["x-psserve-module"] == response.json()["model"]
        assert chosen["module"] in ("alpha", "beta")
        assert 0 <= chosen["confidence"] <= 1
    assert end - middle <= (middle - start) / 2
