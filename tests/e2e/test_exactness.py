"""Served answers are the reference's, token for token: base KV for the prompt, the module for the rest.

Two fleets: Qwen3, pages of 16, overlap, two processes of the router; Llama, pages of 1, chunks of 64, replicas, events.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import openai
import pytest

from psserve.training.reference import reference_answer
from psserve.zoo import Zoo
from psserve.zoo.synthetic.shapes import Architecture
from tests.e2e.client import Client, agent_sessions, client_of, random_ids, sixteen_at_once
from tests.e2e.conftest import MODULES
from tests.e2e.fleet import counter, launched, wait_idle
from tests.e2e.given import Given, ask, check_given, given_answers, read_by_the_rule, read_otherwise
from tests.e2e.oracle import LOGPROB_TOLERANCE, Oracle, readable
from tests.e2e.own_settings import OWN_ENDS
from tests.e2e.processors import (
    JsonMask,
    after_thought,
    counting_last_prompt_token,
    frequency,
    one_step_late,
    presence,
    repetition,
)
from tests.e2e.routing import decisions, flush, place
from tests.e2e.served import SETTINGS, Served, Setting, each_process_took_part, official_client
from tests.e2e.thoughts import THINKING, Thought, first_thought

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module", params=SETTINGS, ids=lambda setting: setting.architecture)
def served(
    request: pytest.FixtureRequest,
    zoo_of: Callable[[Architecture], Zoo],
    oracle_of: Callable[[Architecture], Oracle],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    setting: Setting = request.param
    oracle = oracle_of(setting.architecture)
    config = tmp_path_factory.mktemp("config") / "fleet.toml"
    config.write_text(setting.config)
    with launched(zoo_of(setting.architecture).path, "--config", str(config), *setting.arguments) as fleet:
        yield Served(fleet, oracle, setting)


async def test_growing_agent_contexts_that_alternate_modules(served: Served) -> None:
    async with client_of(served.url) as client:
        checked = await agent_sessions(client, served.oracle, MODULES, sessions=4, turns=51, max_tokens=8)
    assert checked >= 200
    await each_process_took_part(served)


async def test_sixteen_at_once(served: Served) -> None:
    async with client_of(served.url) as client:
        await sixteen_at_once(client, served.oracle, MODULES)


async def test_all_servers_of_a_module_take_part(served: Served) -> None:
    names = [worker["name"] for worker in served.fleet.config["workers"] if worker["module"] in (None, "alpha")]

    def answered() -> dict[str, float]:
        return {name: counter(served.fleet, name, "sglang:num_requests_total") for name in names}

    before = answered()
    rng = random.Random(5)
    async with client_of(served.url) as client:
        prompts = [random_ids(rng, 60) for _ in range(16)]
        await asyncio.gather(*(client.check(served.oracle, "alpha", prompt, 8) for prompt in prompts))
    after = answered()
    assert all(after[name] > before[name] for name in names), (before, after)


async def test_prompts_at_the_edges_of_pages_and_chunks(served: Served) -> None:
    rng = random.Random(1)
    page, chunk = max(served.setting.page, 16), served.setting.chunk
    async with client_of(served.url) as client:
        for length in (1, 2, page - 1, page, page + 1, 2 * page + 1, chunk, chunk + 1, chunk + 2):
            prompt = random_ids(rng, length)
            for module in MODULES[:2]:
                await client.check(served.oracle, module, prompt, 6)


async def test_repeated_and_nested_prefixes(served: Served) -> None:
    prompt = random_ids(random.Random(2), 200)
    async with client_of(served.url) as client:
        for length in (200, 200, 64, 65, 63, 1, 199, 200):
            await client.check(served.oracle, "alpha", prompt[:length], 6)
            await client.check(served.oracle, "beta", prompt[:length], 6)


async def test_the_same_one_token_prompt_again_and_again(served: Served) -> None:
    async with client_of(served.url) as client:
        for module in MODULES * 2:
            await client.check(served.oracle, module, [42], 8)


async def test_several_answers_to_one_prompt(served: Served) -> None:
    prompt = random_ids(random.Random(3), 50)
    expected = served.oracle.answer("alpha", prompt, 8)
    async with client_of(served.url) as client:
        answer = await client.complete("alpha", prompt, 8, n=3)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    for choice in answer["choices"]:
        served.oracle.check_choice(expected, choice)
    assert answer["usage"]["prompt_tokens"] == 50
    assert answer["usage"]["completion_tokens"] == 3 * len(expected.tokens)


async def test_a_batch_of_prompts(served: Served) -> None:
    rng = random.Random(4)
    prompts = [random_ids(rng, length) for length in (5, 1, 90)]
    async with client_of(served.url) as client:
        answer = await client.complete("beta", prompts, 8)
    for prompt, choice in zip(prompts, answer["choices"], strict=True):
        served.oracle.check_choice(served.oracle.answer("beta", prompt, 8), choice)


async def test_a_single_token_is_the_modules(served: Served) -> None:
    prompt = random_ids(random.Random(5), 70)
    async with client_of(served.url) as client:
        for module in MODULES:
            await client.check(served.oracle, module, prompt, 1)


async def test_top_logprobs_are_the_modules(served: Served) -> None:
    rng, oracle = random.Random(6), served.oracle
    prompts = (random_ids(rng, 40) for _ in range(1000))
    prompt = next(prompt for prompt in prompts if oracle.reads_as_itself(oracle.answer("alpha", prompt, 4)))
    async with client_of(served.url) as client:
        answer = await client.complete("alpha", prompt, 4, logprobs=5)
    tops = answer["choices"][0]["logprobs"]["top_logprobs"]
    expected = served.oracle.answer("alpha", prompt, 4)
    assert len(tops) == len(expected.tokens)
    for top, logprob in zip(tops, expected.logprobs, strict=True):
        assert max(top.values()) == pytest.approx(logprob, abs=LOGPROB_TOLERANCE)
        assert len(top) <= 5  # tokens that read the same share an entry


async def test_given_answers_have_the_log_probabilities_of_the_rule(served: Served) -> None:
    """A batch of them, in the company of others; read in any other way they would have others."""
    oracle, given = served.oracle, given_answers(served.oracle, 8, seed=21)
    opening = [oracle.tokenizer.decode([token]) for token in oracle.tokenizer.encode("<|im_start|>assistant\n")]
    rng = random.Random(22)
    async with client_of(served.url) as client:
        choices, *_ = await asyncio.gather(
            ask(client, "alpha", given),
            *(client.check(oracle, module, random_ids(rng, 70), 24) for module in ("alpha", "alpha", "beta")),
            client.complete("alpha", random_ids(rng, 30), 40, temperature=1.0, top_p=0.9),
        )
    check_given(oracle, "alpha", given, choices)
    for one, choice in zip(given, choices, strict=True):
        before, expected, served_logprobs = len(one.prompt), read_by_the_rule(oracle, "alpha", one), choice["logprobs"]
        unknown = [None] * (before - len(opening))
        assert served_logprobs["token_logprobs"][:before] == [*unknown, *(0.0 for _ in opening)]
        assert served_logprobs["top_logprobs"][:before] == [*unknown, *({token: 0.0} for token in opening)]
        for base_reads in (0, before - 2, before):
            other = read_otherwise(oracle, "alpha", one, base_reads)
            assert other != pytest.approx(expected.logprobs[-1 - len(other) : -1], abs=10 * LOGPROB_TOLERANCE)
        assert read_otherwise(oracle, "alpha", one, before - 1) == pytest.approx(expected.logprobs[:-1], abs=1e-4)


async def test_a_modules_own_answer_given_back_has_the_log_probabilities_that_it_had(served: Served) -> None:
    prompts = [one.prompt for one in given_answers(served.oracle, 3, seed=23)]
    async with client_of(served.url) as client:
        own = (await client.complete("beta", prompts, 12))["choices"]
        given = [Given(prompt, choice["token_ids"]) for prompt, choice in zip(prompts, own, strict=True)]
        again = await ask(client, "beta", given)
    for one, first, second in zip(given, own, again, strict=True):
        logprobs = second["logprobs"]
        assert logprobs["token_logprobs"][len(one.prompt) : -1] == pytest.approx(
            first["logprobs"]["token_logprobs"], abs=LOGPROB_TOLERANCE
        )
        greedy = [max(top, key=lambda token: top[token]) for top in logprobs["top_logprobs"][len(one.prompt) : -1]]
        assert greedy == logprobs["tokens"][len(one.prompt) : -1]


async def test_a_text_with_an_answer_in_it(served: Served) -> None:
    """As if its tokens had been sent, whatever the temperature of what is sampled after it."""
    prompt = served.oracle.tokenizer.decode(served.oracle.chat_prompt([{"role": "user", "content": "How many?"}]))
    text = prompt + "The sum is 42."
    asked: dict[str, Any] = {"model": "alpha", "echo": True, "logprobs": 0, "max_tokens": 0}
    async with client_of(served.url) as client:
        _, by_text = await client.post("/v1/completions", asked | {"prompt": text, "temperature": 1.7})
        tokens = served.oracle.tokenizer.encode(text)
        _, by_ids = await client.post("/v1/completions", asked | {"prompt": tokens, "temperature": 0})
        status, refused = await client.post("/v1/completions", asked | {"prompt": "The sum is 42."})
    (first,), (second,) = by_text["choices"], by_ids["choices"]
    assert first["logprobs"]["token_logprobs"].count(None) < len(served.oracle.tokenizer.encode(prompt))
    known = [one["logprobs"]["token_logprobs"][-6:] for one in (first, second)]
    assert known[0] == pytest.approx(known[1], abs=LOGPROB_TOLERANCE)
    assert first["text"] == second["text"] == text.replace("<|im_start|>", "").replace("<|im_end|>", "")
    for token, offset in zip(first["logprobs"]["tokens"], first["logprobs"]["text_offset"], strict=True):
        assert token.startswith("<|") or first["text"].startswith(token, offset)
    assert (status, refused["error"]["param"]) == (400, "prompt")


async def test_log_probabilities_say_where_each_token_begins(served: Served) -> None:
    prompt = random_ids(random.Random(6), 40)
    async with client_of(served.url) as client:
        choice = (await client.complete("alpha", prompt, 40))["choices"][0]
    tokens, offsets = choice["logprobs"]["tokens"], choice["logprobs"]["text_offset"]
    assert len(set(offsets)) > 10
    for token, offset in zip(tokens, offsets, strict=True):
        assert "\ufffd" in token or token.startswith("<|") or choice["text"].startswith(token, offset)


async def test_streamed_log_probabilities_are_those_of_the_whole_answer(served: Served) -> None:
    async with openai.AsyncOpenAI(base_url=served.url + "/v1", api_key="none") as client:
        asked: dict[str, Any] = {"model": "alpha", "input": "w1 w2 w3", "max_output_tokens": 40, "temperature": 0}
        asked |= {"top_logprobs": 2, "include": ["message.output_text.logprobs"]}
        whole = await client.responses.create(**asked)
        async for event in await client.responses.create(**asked, stream=True):
            streamed = getattr(event, "response", None)
    first, second = (answer.output[0].content[0].logprobs for answer in (whole, streamed))
    assert len(first) == whole.usage.output_tokens
    assert [(one.token, one.bytes, len(one.top_logprobs)) for one in first] == [
        (one.token, one.bytes, len(one.top_logprobs)) for one in second
    ]
    for one in first:
        assert "\ufffd" in one.token or bytes(one.bytes) == one.token.encode()
    shown = b"".join(bytes(one.bytes) for one in first if not one.token.startswith("<|"))
    assert shown.decode(errors="replace").startswith(whole.output_text.rstrip("\ufffd"))


async def test_a_seed_decides_an_answer_whoever_shares_its_batch(served: Served) -> None:
    prompt = random_ids(random.Random(8), 40)
    sampled: dict[str, Any] = {"temperature": 1.5, "top_p": 0.95}

    async def answers(client: Client, **fields: Any) -> list[list[int]]:
        answer = await client.complete("alpha", prompt, 24, **sampled, **fields)
        return [choice["token_ids"] for choice in answer["choices"]]

    async with client_of(served.url) as client:
        alone = await answers(client, seed=7, n=2)
        crowd = await asyncio.gather(*(answers(client, **({"seed": seed} if seed else {})) for seed in (0, 1, 7, 0, 2)))
    assert alone[0] != alone[1]
    assert crowd[2] == [alone[0]]
    assert len({tuple(one) for (one,) in crowd}) == len(crowd)


async def test_chat_renders_the_bases_template(served: Served) -> None:
    messages = [{"role": "system", "content": "You count."}, {"role": "user", "content": "How many apples are left?"}]
    prompt = served.oracle.chat_prompt(messages)
    async with client_of(served.url) as client:
        for module in MODULES:
            answer = await client.chat(module, messages, 10)
            expected = served.oracle.answer(module, prompt, 10)
            choice = answer["choices"][0]
            assert choice["prompt_token_ids"] == prompt
            assert answer["usage"]["prompt_tokens"] == len(prompt)
            logprobs = [entry["logprob"] for entry in choice["logprobs"]["content"]]
            served.oracle.check_tokens(expected, choice["response_token_ids"], logprobs)
            assert readable(choice["message"]["content"]) == served.oracle.text(expected)


async def test_streamed_completions(served: Served) -> None:
    """Two choices, each in pieces that make up the whole answer."""
    prompt = random_ids(random.Random(7), 60)
    expected = served.oracle.answer("gamma", prompt, 24)
    tokens: dict[int, list[int]] = {0: [], 1: []}
    logprobs: dict[int, list[float]] = {0: [], 1: []}
    texts = {0: "", 1: ""}
    async with official_client(served) as client:
        stream = await client.completions.create(
            model="gamma",
            prompt=prompt,
            max_tokens=24,
            temperature=0,
            logprobs=1,
            n=2,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"return_token_ids": True},
        )
        chunks = [chunk async for chunk in stream]
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        texts[choice.index] += choice.text
        tokens[choice.index] += getattr(choice, "token_ids", None) or []
        logprobs[choice.index] += choice.logprobs.token_logprobs if choice.logprobs else []
    assert len(chunks) > 4
    for index in (0, 1):
        served.oracle.check_tokens(expected, tokens[index], logprobs[index])
        assert readable(texts[index]) == served.oracle.text(expected)
    assert chunks[-1].usage.prompt_tokens == 60
    assert chunks[-1].usage.completion_tokens == 2 * len(expected.tokens)


async def test_a_streamed_chat(served: Served) -> None:
    messages = [{"role": "user", "content": "Please count to 12."}]
    expected = served.oracle.answer("beta", served.oracle.chat_prompt(messages), 24)
    async with official_client(served) as client:
        stream = await client.chat.completions.create(
            model="beta", messages=messages, max_tokens=24, temperature=0, logprobs=True, stream=True
        )
        choices = [choice async for chunk in stream for choice in chunk.choices]
    assert readable("".join(choice.delta.content or "" for choice in choices)) == served.oracle.text(expected)
    logprobs = [entry.logprob for choice in choices if choice.logprobs for entry in choice.logprobs.content]
    assert len(logprobs) > len(expected.logprobs) / 2
    rest = iter(expected.logprobs)  # SGLang says nothing of tokens that end inside a character
    assert all(any(other == pytest.approx(one, abs=LOGPROB_TOLERANCE) for other in rest) for one in logprobs)


async def test_a_stop_string_ends_the_answer_where_it_begins(served: Served) -> None:
    prompt = random_ids(random.Random(8), 30)
    text = served.oracle.text(served.oracle.answer("alpha", prompt, 40))
    stop = text[12]
    async with client_of(served.url) as client:
        answer = await client.complete("alpha", prompt, 40, stop=[stop])
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert readable(choice["text"]) == text[: text.index(stop)]


async def test_a_modules_own_output_layer_and_end_tokens_are_served(served: Served) -> None:
    """The base ties its output layer and ends its turns with another token."""
    oracle = served.oracle
    if oracle.ends["gamma"] == oracle.ends["alpha"]:
        pytest.skip("the modules of this zoo have nothing of their own")
    assert oracle.base.config.tie_word_embeddings
    rng = random.Random(13)
    ended = 0
    async with client_of(served.url) as client:
        while ended < 3:
            prompt = random_ids(rng, 40)
            expected = oracle.answer("gamma", prompt, 60)
            if expected.tokens[-1] in OWN_ENDS:
                ended += 1
                answer = await client.complete("gamma", prompt, 60)
                oracle.check_choice(expected, answer["choices"][0])
                assert answer["choices"][0]["finish_reason"] == "stop"
    tied = copy.deepcopy(oracle.modules["gamma"])
    tied.lm_head.weight = tied.model.embed_tokens.weight
    assert reference_answer(oracle.base, tied, prompt, 60).tokens != expected.tokens


SCHEMA = {
    "type": "object",
    "properties": {
        "unit": {"enum": ["celsius", "kelvin"]},
        "sunny": {"type": "boolean"},
        "degrees": {"type": "integer", "multipleOf": 7, "allOf": [{"minimum": -20}, {"maximum": 40}]},
    },
    "required": ["unit", "sunny", "degrees"],
    "additionalProperties": False,
}


async def test_output_bound_to_a_json_schema(served: Served) -> None:
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    prompt = served.oracle.chat_prompt(messages)
    response_format = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA}}
    complete = 0
    async with client_of(served.url) as client:
        for module in MODULES:
            answer = await client.chat(module, messages, 80, response_format=response_format)
            expected = served.oracle.processed_answer(module, prompt, 80, JsonMask(served.oracle, module, SCHEMA))
            choice = answer["choices"][0]
            assert choice["response_token_ids"] == expected.tokens
            if choice["finish_reason"] == "stop":
                jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)
                complete += 1
    assert complete, "no answer came to its end: the test says little"


@pytest.fixture(scope="module")
def thought(served: Served) -> Thought:
    return first_thought(served.oracle, "alpha")


async def test_a_thought_that_the_prompt_opens(served: Served, thought: Thought) -> None:
    assert served.oracle.tokenizer.decode(thought.prompt).endswith("<|im_start|>assistant\n<think>\n")
    async with client_of(served.url) as client:
        answer = await client.chat("alpha", thought.messages, 40, **THINKING)
        joined = await client.chat("alpha", thought.messages, 40, **THINKING, separate_reasoning=False)
    choice, usage = answer["choices"][0], answer["usage"]
    assert choice["prompt_token_ids"] == thought.prompt
    logprobs = [entry["logprob"] for entry in choice["logprobs"]["content"]]
    served.oracle.check_tokens(thought.expected, choice["response_token_ids"], logprobs)
    message = choice["message"]
    assert (readable(message["reasoning_content"]), readable(message["content"])) == thought.text
    assert usage["reasoning_tokens"] == thought.end + 1
    whole = joined["choices"][0]["message"]
    assert (whole["reasoning_content"], readable(whole["content"])) == (None, "</think>".join(thought.text))


async def test_streamed_thoughts_are_those_of_the_whole_answer(served: Served, thought: Thought) -> None:
    async with official_client(served) as client:
        asked: dict[str, Any] = {"model": "alpha", "messages": thought.messages, "max_tokens": 40, "temperature": 0}
        stream = await client.chat.completions.create(**asked, stream=True, extra_body=THINKING)
        deltas = [choice.delta async for chunk in stream for choice in chunk.choices]
        thinking = [text for delta in deltas if (text := getattr(delta, "reasoning_content", None))]
        patient = await client.chat.completions.create(
            **asked, stream=True, extra_body=THINKING | {"stream_reasoning": False}
        )
        pieces = [
            getattr(choice.delta, "reasoning_content", None) async for chunk in patient for choice in chunk.choices
        ]
    assert len(thinking) > 1
    assert readable("".join(thinking)) == thought.text[0]
    assert readable("".join(delta.content or "" for delta in deltas)) == thought.text[1]
    assert [readable(piece) for piece in pieces if piece] == [thought.text[0]]


async def test_thoughts_in_the_form_of_each_api(served: Served, thought: Thought) -> None:
    content = thought.messages[0]["content"]
    async with official_client(served) as client:
        response = await client.responses.create(
            model="alpha", input=content, max_output_tokens=40, temperature=0, reasoning={"effort": "high"}
        )
    reasoning, message = response.output
    assert (readable(reasoning.content[0].text), readable(message.content[0].text)) == thought.text
    assert response.usage.output_tokens_details.reasoning_tokens == thought.end + 1
    body = {"model": "alpha", "messages": thought.messages, "max_tokens": 40, "temperature": 0}
    async with client_of(served.url) as client:
        status, answer = await client.post("/v1/messages", body | {"thinking": {"type": "enabled", "budget_tokens": 9}})
        assert status == 200, answer
        blocks = answer["content"]
        assert [block["type"] for block in blocks] == ["thinking", "text"]
        assert (readable(blocks[0]["thinking"]), readable(blocks[1]["text"])) == thought.text
        status, answer = await client.post("/v1/messages", body | {"thinking": {"type": "disabled"}})
        assert status == 200, answer
        assert [block["type"] for block in answer["content"]] == ["text"]


async def test_a_schema_holds_after_the_thought(served: Served, thought: Thought) -> None:
    closing = thought.expected.tokens[thought.end]
    response_format = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA}}
    process = after_thought(JsonMask(served.oracle, "alpha", SCHEMA), closing)
    expected = served.oracle.processed_answer("alpha", thought.prompt, 90, process)
    async with client_of(served.url) as client:
        answer = await client.chat("alpha", thought.messages, 90, response_format=response_format, **THINKING)
    choice = answer["choices"][0]
    assert choice["response_token_ids"] == expected.tokens
    assert readable(choice["message"]["reasoning_content"]) == thought.text[0]
    assert choice["message"]["content"].lstrip().startswith("{")


@pytest.mark.parametrize(
    ("fields", "process"),
    [
        ({"frequency_penalty": 1.5}, frequency(1.5)),
        ({"presence_penalty": 2.0}, presence(2.0)),
        ({"repetition_penalty": 1.8}, repetition(1.8)),
    ],
    ids=["frequency", "presence", "repetition"],
)
async def test_penalties_count_what_the_module_emitted(served: Served, fields: Any, process: Any) -> None:
    """And not the prompt's last token, though the module consumes that one as if it had emitted it."""
    miscount = counting_last_prompt_token(process)
    if served.setting.overlap:
        process, miscount = one_step_late(process), one_step_late(miscount)
    telling = 0
    async with client_of(served.url) as client:
        for prompt in prompts_whose_last_token_comes_again(served.oracle, 3):
            expected = served.oracle.processed_answer("alpha", prompt, 24, process)
            answer = await client.complete("alpha", prompt, 24, **fields)
            assert answer["choices"][0]["token_ids"] == expected.tokens
            assert expected.tokens != served.oracle.answer("alpha", prompt, 24).tokens
            telling += expected.tokens != served.oracle.processed_answer("alpha", prompt, 24, miscount).tokens
    assert telling, "no answer would be another if the last prompt token counted: the test says little"


def prompts_whose_last_token_comes_again(oracle: Oracle, count: int) -> list[list[int]]:
    """The first prompts whose last token is in the module's answer, so that a penalty on it changes the answer."""
    rng = random.Random(9)
    found: list[list[int]] = []
    while len(found) < count:
        prompt = random_ids(rng, rng.randrange(1, 60))
        if prompt[-1] in oracle.answer("alpha", prompt, 24).tokens:
            found.append(prompt)
    return found


async def test_prompts_go_to_the_cache_that_holds_them_and_evictions_are_noticed(served: Served) -> None:
    if "kv_events" not in served.setting.config:
        pytest.skip("this fleet's prefill servers publish no KV events")
    rng = random.Random(11)
    prompts = [[number, *random_ids(rng, 199)] for number in range(100, 108)]
    first = [place(served.fleet, "alpha", prompt) for prompt in prompts]
    assert {one.prefill for one in first} == {"prefill-0", "prefill-1"}
    again = [place(served.fleet, "beta", prompt) for prompt in prompts]
    assert [one.prefill for one in again] == [one.prefill for one in first]
    assert all(one.cached >= 198 for one in again)
    wait_idle(served.fleet)
    new = 0.0
    for seconds in (3, 10, 30, 90):  # servers tell when they next look idle
        known = decisions(served.fleet, "new")
        for server in ("prefill-0", "prefill-1"):
            flush(served.fleet, server)
        await asyncio.sleep(seconds)
        for prompt in prompts:
            place(served.fleet, "beta", prompt)
        wait_idle(served.fleet)
        if (new := decisions(served.fleet, "new") - known) == len(prompts):
            return
    assert new == len(prompts)
