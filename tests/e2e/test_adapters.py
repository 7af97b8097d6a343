"""Many LoRA adapters on one decode server: exact, over one tree of base KV, whatever comes and goes."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from psserve.zoo import Zoo
from tests.e2e.adapters import OUTPUT, SHAPES, AdapterOracle, build_adapters
from tests.e2e.client import Client, agent_sessions, client_of, random_ids, sixteen_at_once
from tests.e2e.fleet import RunningFleet, counter, direct_pair, launched, load_of, wait_idle
from tests.e2e.given import ask, check_given, given_answers
from tests.e2e.processors import JsonMask, frequency, one_step_late
from tests.e2e.test_engine_modes import FORCED_RETRACTION, RETRACTED, leave_early
from tests.e2e.transfer import copies_alone

pytestmark = pytest.mark.e2e

PAGE = 16
FOUR = tuple(SHAPES)
MORE = {f"more-{number}": {"r": 2, "target_modules": ["q_proj", "gate_proj"]} for number in range(7)}
TWELVE = (*FOUR, "output", *MORE)
SLOTS = 4
SERVER = "decode-adapters-0"
REPLACEMENTS = 24
CONFIG = f"[adapters]\nmax_loras_per_batch = {SLOTS}\nmax_loaded = {SLOTS + 2}\n"
"""Four adapters run at once, six are in memory, and twelve are asked for."""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return build_adapters(tmp_path_factory.mktemp("adapters"), "qwen3", SHAPES | {"output": OUTPUT} | MORE)


@pytest.fixture(scope="module")
def oracle(zoo: Zoo) -> AdapterOracle:
    return AdapterOracle(zoo)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "fleet.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def fleet(zoo: Zoo, config: Path) -> Iterator[RunningFleet]:
    with launched(zoo.path, "--page-size", str(PAGE), "--config", str(config)) as fleet:
        yield fleet


def transferred(fleet: RunningFleet) -> float:
    """KV sent to the decode server, in tokens."""
    wait_idle(fleet)
    memory = load_of(fleet, "prefill-0")["memory"]
    sent = counter(fleet, "prefill-0", "sglang:kv_transfer_total_mb_sum")
    return sent / 1024 / memory["kv_cache_gb"] * memory["token_capacity"]


# --- exact


async def test_growing_contexts_that_alternate_adapters(fleet: RunningFleet, oracle: AdapterOracle) -> None:
    async with client_of(fleet.url) as client:
        checked = await agent_sessions(client, oracle, FOUR, sessions=4, turns=51, max_tokens=8)
    assert checked >= 200


async def test_sixteen_at_once_of_all_shapes(fleet: RunningFleet, oracle: AdapterOracle) -> None:
    async with client_of(fleet.url) as client:
        await sixteen_at_once(client, oracle, FOUR)


async def test_prompts_at_the_edges_of_pages(fleet: RunningFleet, oracle: AdapterOracle) -> None:
    rng = random.Random(1)
    async with client_of(fleet.url) as client:
        for length in (1, 2, PAGE, PAGE + 1, 2 * PAGE + 1):
            prompt = random_ids(rng, length)
            await asyncio.gather(*(client.check(oracle, adapter, prompt, 6) for adapter in FOUR))


async def test_an_adapter_of_the_output_layer(fleet: RunningFleet, oracle: AdapterOracle) -> None:
    rng = random.Random(2)
    async with client_of(fleet.url) as client:
        await asyncio.gather(
            *(client.check(oracle, adapter, random_ids(rng, 40), 12) for adapter in ("output", "plain", "output"))
        )


async def test_several_answers_and_several_prompts(fleet: RunningFleet, oracle: AdapterOracle) -> None:
    rng = random.Random(3)
    prompts = [random_ids(rng, length) for length in (50, 5, 1)]
    async with client_of(fleet.url) as client:
        same = await client.complete("rslora", prompts[0], 8, n=3)
        each = await client.complete("patterns", prompts, 8)
    for choice in same["choices"]:
        oracle.check_choice(oracle.answer("rslora", prompts[0], 8), choice)
    for prompt, choice in zip(prompts, each["choices"], strict=True):
        oracle.check_choice(oracle.answer("patterns", prompt, 8), choice)


async def test_given_answers_of_several_adapters_at_once(fleet: RunningFleet, oracle: AdapterOracle) -> None:
    given = given_answers(oracle, 3, seed=4)
    async with client_of(fleet.url) as client:
        everything = await asyncio.gather(*(ask(client, adapter, given) for adapter in FOUR))
    for adapter, choices in zip(FOUR, everything, strict=True):
        check_given(oracle, adapter, given, choices)


SCHEMA = {
    "type": "object",
    "properties": {"unit": {"enum": ["celsius", "kelvin"]}, "sunny": {"type": "boolean"}},
    "required": ["unit", "sunny"],
    "additionalProperties": False,
}


async def test_a_grammar_for_one_and_a_penalty_for_another_in_one_batch(
    fleet: RunningFleet, oracle: AdapterOracle
) -> None:
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    prompt = oracle.chat_prompt(messages)
    response_format = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA}}
    async with client_of(fleet.url) as client:
        bound, varied, _ = await asyncio.gather(
            client.chat("some", messages, 40, response_format=response_format),
            client.complete("plain", prompt, 40, frequency_penalty=1.5),
            client.check(oracle, "rslora", prompt, 40),
        )
    expected = oracle.processed_answer("some", prompt, 40, JsonMask(oracle, "some", SCHEMA))
    assert bound["choices"][0]["response_token_ids"] == expected.tokens
    expected = oracle.processed_answer("plain", prompt, 40, one_step_late(frequency(1.5)))
    assert varied["choices"][0]["token_ids"] == expected.tokens


async def test_peft_files_as_they_came_are_served_wrong(fleet: RunningFleet, zoo: Zoo, oracle: AdapterOracle) -> None:
    """The checks above can fail: without the form that the zoo serves, an rsLoRA adapter has another scale."""
    link(fleet, "raw@1", zoo.module("rslora").path)
    link(fleet, "formed@1", form_of(fleet, "rslora@1"))
    prompt = random_ids(random.Random(4), 40)
    expected = oracle.answer("rslora", prompt, 8)
    right = await direct_pair(fleet, "adapters", prompt, 8, adapter="formed@1")
    oracle.check_tokens(expected, right.tokens, right.logprobs)
    wrong = await direct_pair(fleet, "adapters", prompt, 8, adapter="raw@1")
    assert wrong.logprobs[0] != pytest.approx(expected.logprobs[0], abs=1e-3)


# --- shared


@copies_alone("decode servers keep nothing")
async def test_what_one_adapter_received_no_other_receives_again(fleet: RunningFleet, oracle: AdapterOracle) -> None:
    prompt = random_ids(random.Random(5), 30 * PAGE + 1)
    async with client_of(fleet.url) as client:
        start = transferred(fleet)
        await client.check(oracle, "plain", prompt, 4)
        middle = transferred(fleet)
        for adapter in FOUR[1:]:
            await client.check(oracle, adapter, prompt, 4)
        end = transferred(fleet)
    again = await direct_pair(fleet, "adapters", prompt, 1, adapter="rslora@1")
    assert again.decode["meta_info"]["cached_tokens"] == len(prompt) - 1
    assert middle - start >= len(prompt) - 1 - PAGE
    assert end == middle


@copies_alone("decode servers keep nothing")
async def test_with_the_adapter_in_the_key_nothing_is_shared(tmp_path: Path, config: Path) -> None:
    """The check above can fail."""
    zoo = build_adapters(tmp_path, "qwen3", {name: SHAPES[name] for name in ("plain", "rslora")})
    env = {"PSSERVE_NEGATIVE_CONTROL": "adapter-in-key"}
    prompt = random_ids(random.Random(6), 10 * PAGE + 1)
    with launched(zoo.path, "--config", str(config), env=env) as fleet:
        for adapter in ("plain@1", "rslora@1"):
            answer = await direct_pair(fleet, "adapters", prompt, 1, adapter=adapter)
            assert answer.decode["meta_info"]["cached_tokens"] == 0


# --- coming and going


async def test_a_storm_of_more_adapters_than_there_are_places(fleet: RunningFleet, oracle: AdapterOracle) -> None:
    rng = random.Random(7)
    asked = [(adapter, random_ids(rng, 60)) for adapter in TWELVE * 4]
    rng.shuffle(asked)
    async with client_of(fleet.url) as client:
        await asyncio.gather(*(client.check(oracle, adapter, prompt, 12) for adapter, prompt in asked))


async def test_loaded_replaced_and_unloaded_under_load(fleet: RunningFleet, oracle: AdapterOracle) -> None:
    """Adapters come under new names and go while clients ask for others: no request fails, every answer is right."""
    over = asyncio.Event()
    served = asyncio.create_task(ask_until(over, fleet, oracle, clients=12))
    prompt = random_ids(random.Random(8), 50)
    before = await loaded(fleet)
    for number, adapter in zip(range(REPLACEMENTS), itertools.cycle(FOUR), strict=False):
        name = f"replaced@{number}"
        link(fleet, name, form_of(fleet, f"{adapter}@1"))
        answer = await direct_pair(fleet, "adapters", prompt, 4, adapter=name)
        expected = oracle.answer(adapter, prompt, 4)
        oracle.check_tokens(expected, answer.tokens, answer.logprobs)
        (folder(fleet) / name).unlink()
        await unload(fleet, name)
    over.set()
    assert await served > 0
    wait_idle(fleet)
    assert not [name for name in await loaded(fleet) if name.startswith("replaced")]
    assert len(before) <= SLOTS + 2


async def test_an_adapter_whose_clients_left_or_were_refused_can_be_unloaded(fleet: RunningFleet) -> None:
    link(fleet, "left@1", form_of(fleet, "plain@1"))
    prompt = random_ids(random.Random(9), 50)
    await direct_pair(fleet, "adapters", prompt, 1, adapter="left@1")
    leaving = [asyncio.create_task(direct_pair(fleet, "adapters", prompt, 400, adapter="left@1")) for _ in range(4)]
    await until_running(fleet)
    for task in leaving:
        task.cancel()
    await asyncio.wait(leaving)
    url = f"{fleet.worker_url(SERVER)}/generate"
    async with aiohttp.ClientSession(headers=fleet.auth) as session:
        body = {"input_ids": [20] * 100_000, "lora_path": "left@1"}
        async with session.post(url, json=body) as answer:
            assert answer.status == 400
    await unload(fleet, "left@1")
    (folder(fleet) / "left@1").unlink()
    wait_idle(fleet)


async def test_an_adapter_that_is_not_in_the_folder_is_refused_and_no_path_is_a_name(
    fleet: RunningFleet, zoo: Zoo
) -> None:
    url = f"{fleet.worker_url(SERVER)}/generate"
    async with aiohttp.ClientSession(headers=fleet.auth) as session:
        for name in ("gone@1", str(zoo.module("plain").path), "../adapters/plain@1"):
            async with session.post(url, json={"input_ids": [20, 21], "lora_path": name}) as answer:
                assert answer.status == 400
                assert "never been loaded" in await answer.text()


async def test_retraction_and_aborts_with_pages_of_one_token(tmp_path_factory: pytest.TempPathFactory) -> None:
    zoo = build_adapters(tmp_path_factory.mktemp("llama"), "llama", SHAPES)
    oracle = AdapterOracle(zoo)
    arguments = ("--page-size", "1", "--", "--disable-overlap-schedule")
    with launched(zoo.path, *arguments, env=FORCED_RETRACTION) as fleet:
        async with client_of(fleet.url) as client:
            await agent_sessions(client, oracle, FOUR, sessions=6, turns=3, max_tokens=40)
            wait_idle(fleet)
            assert counter(fleet, SERVER, RETRACTED) > 5
            checked = await agent_sessions(client, oracle, FOUR, sessions=16, turns=13, max_tokens=6, seed=50)
            assert checked >= 200
            await asyncio.gather(
                leave_early(client, random.Random(1), requests=20, modules=FOUR),
                agent_sessions(client, oracle, FOUR, sessions=3, turns=2, max_tokens=30, seed=100),
            )
        wait_idle(fleet)


# --- helpers


def folder(fleet: RunningFleet) -> Path:
    return fleet.zoo / ".run" / "adapters"


def link(fleet: RunningFleet, name: str, form: Path) -> None:
    """Offer an adapter to the fleet's servers by another name."""
    (folder(fleet) / name).symlink_to(form)


def form_of(fleet: RunningFleet, name: str) -> Path:
    return (folder(fleet) / name).resolve()


async def until_running(fleet: RunningFleet) -> None:
    """Wait until the decode server computes something."""
    async with asyncio.timeout(60):
        while not load_of(fleet, SERVER)["num_running_reqs"]:  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.05)


async def unload(fleet: RunningFleet, name: str) -> None:
    """Ask for it over a connection of its own: the server ends one that was idle for some seconds."""
    async with (
        aiohttp.ClientSession(headers=fleet.auth) as session,
        session.post(f"{fleet.worker_url(SERVER)}/unload_lora_adapter", json={"lora_name": name}) as answer,
    ):
        assert answer.status == 200, await answer.text()


async def loaded(fleet: RunningFleet) -> list[str]:
    """The adapters that the decode server has in memory."""
    async with (
        aiohttp.ClientSession(headers=fleet.auth) as session,
        session.get(f"{fleet.worker_url(SERVER)}/v1/models") as answer,
    ):
        return [entry["id"] for entry in (await answer.json())["data"] if "@" in entry["id"]]


async def ask_until(over: asyncio.Event, fleet: RunningFleet, oracle: AdapterOracle, clients: int) -> int:
    """Ask for adapters at random, through the router. Returns the number of right answers; there are no others."""
    prompts = [random_ids(random.Random(number), 40) for number in range(4)]

    async def ask(client: Client, number: int) -> int:
        rng = random.Random(number)
        for count in itertools.count():
            if over.is_set():
                return count
            await client.check(oracle, rng.choice(FOUR), rng.choice(prompts), 8)
        raise AssertionError

    async with client_of(fleet.url) as client:
        return sum(await asyncio.gather(*(ask(client, number) for number in range(clients))))
