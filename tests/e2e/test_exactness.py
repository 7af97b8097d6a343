"""Served answers are the reference's, token for token: base KV for the prompt, the module for the rest.

Two fleets: Qwen3 with pages of 16 and overlap scheduling, Llama with pages of 1, no overlap and prompts computed in
chunks of 64 tokens.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from psserve.zoo import Zoo
from psserve.zoo.synthetic import Architecture
from tests.e2e.client import agent_sessions, client_of, random_ids
from tests.e2e.conftest import MODULES
from tests.e2e.fleet import RunningFleet, launched
from tests.e2e.oracle import Oracle, readable

pytestmark = pytest.mark.e2e


@dataclass(frozen=True)
class Setting:
    architecture: Architecture
    page: int
    chunk: int
    overlap: bool
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Served:
    """A running fleet and what it must answer."""

    fleet: RunningFleet
    oracle: Oracle
    setting: Setting

    @property
    def url(self) -> str:
        return self.fleet.url


SETTINGS = (
    Setting("qwen3", 16, 2048, True, ("--page-size", "16")),
    Setting(
        "llama",
        1,
        64,
        False,
        ("--page-size", "1", "--chunked-prefill-size", "64", "--", "--disable-overlap-schedule"),
    ),
)


@pytest.fixture(scope="module", params=SETTINGS, ids=lambda setting: setting.architecture)
def served(
    request: pytest.FixtureRequest,
    zoo_of: Callable[[Architecture], Zoo],
    oracle_of: Callable[[Architecture], Oracle],
) -> Iterator[Served]:
    setting: Setting = request.param
    oracle = oracle_of(setting.architecture)
    with launched(zoo_of(setting.architecture).path, *setting.arguments) as fleet:
        yield Served(fleet, oracle, setting)


async def test_growing_agent_contexts_that_alternate_modules(served: Served) -> None:
    async with client_of(served.url) as client:
        checked = await agent_sessions(client, served.oracle, MODULES, sessions=4, turns=51, max_tokens=8)
    assert checked >= 200


async def test_sixteen_at_once(served: Served) -> None:
    rng = random.Random(16)
    async with client_of(served.url) as client:
        prompts = [random_ids(rng, rng.randrange(1, 300)) for _ in range(16)]
        await asyncio.gather(
            *(client.check(served.oracle, MODULES[i % 3], prompt, 16) for i, prompt in enumerate(prompts))
        )


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
    prompt = random_ids(random.Random(6), 40)
    async with client_of(served.url) as client:
        answer = await client.complete("alpha", prompt, 4, logprobs=5)
    tops = answer["choices"][0]["logprobs"]["top_logprobs"]
    expected = served.oracle.answer("alpha", prompt, 4)
    assert len(tops) == len(expected.tokens)
    for top, logprob in zip(tops, expected.logprobs, strict=True):
        assert max(top.values()) == pytest.approx(logprob, abs=1e-4)
        assert len(top) <= 5  # tokens that read the same share an entry


async def test_chat_renders_the_bases_template(served: Served) -> None:
    messages = [{"role": "system", "content": "You count."}, {"role": "user", "content": "How many apples are left?"}]
    prompt = served.oracle.chat_prompt(messages)
    async with client_of(served.url) as client:
        for module in MODULES:
            body = {"model": module, "messages": messages, "max_tokens": 10, "temperature": 0, "logprobs": True}
            status, answer = await client.post("/v1/chat/completions", body)
            assert status == 200, answer
            expected = served.oracle.answer(module, prompt, 10)
            choice = answer["choices"][0]
            assert answer["usage"]["prompt_tokens"] == len(prompt)
            assert readable(choice["message"]["content"]) == served.oracle.text(expected)
            logprobs = [entry["logprob"] for entry in choice["logprobs"]["content"]]
            assert logprobs == pytest.approx(expected.logprobs, abs=1e-4)


async def test_a_stream_says_what_the_whole_answer_says(served: Served) -> None:
    openai = pytest.importorskip("openai")
    prompt = random_ids(random.Random(7), 60)
    expected = served.oracle.answer("gamma", prompt, 24)
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
        stream = await client.completions.create(
            model="gamma",
            prompt=prompt,
            max_tokens=24,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    assert readable("".join(chunk.choices[0].text for chunk in chunks if chunk.choices)) == served.oracle.text(expected)
    assert chunks[-1].usage.prompt_tokens == 60
    assert chunks[-1].usage.completion_tokens == len(expected.tokens)


async def test_a_stop_string_ends_the_answer_where_it_begins(served: Served) -> None:
    prompt = random_ids(random.Random(8), 30)
    text = served.oracle.text(served.oracle.answer("alpha", prompt, 40))
    stop = text[12]
    async with client_of(served.url) as client:
        answer = await client.complete("alpha", prompt, 40, stop=[stop])
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert readable(choice["text"]) == text[: text.index(stop)]


SCHEMA = {
    "type": "object",
    "properties": {"unit": {"enum": ["celsius", "kelvin"]}, "days": {"type": "integer"}, "sunny": {"type": "boolean"}},
    "required": ["unit", "days", "sunny"],
    "additionalProperties": False,
}


async def test_output_bound_to_a_json_schema(served: Served) -> None:
    messages = [{"role": "user", "content": "The weather, please."}]
    prompt = served.oracle.chat_prompt(messages)
    response_format = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA}}
    async with client_of(served.url) as client:
        for module in MODULES:
            body = {"model": module, "messages": messages, "max_tokens": 60, "temperature": 0, "logprobs": True}
            status, answer = await client.post("/v1/chat/completions", body | {"response_format": response_format})
            assert status == 200, answer
            expected = served.oracle.processed_answer(module, prompt, 60, _JsonMask(served.oracle))
            choice = answer["choices"][0]
            assert readable(choice["message"]["content"]) == served.oracle.text(expected)
            if choice["finish_reason"] == "stop":
                assert set(json.loads(choice["message"]["content"])) == set(SCHEMA["properties"])


class _JsonMask:
    """The grammar's mask on the reference's logits, by the library that SGLang uses."""

    def __init__(self, oracle: Oracle) -> None:
        import xgrammar

        self._xgrammar = xgrammar
        size = oracle.zoo.base.vocab_size
        info = xgrammar.TokenizerInfo.from_huggingface(
            oracle.tokenizer, vocab_size=size, stop_token_ids=list(oracle.zoo.base.eos_token_ids)
        )
        compiled = xgrammar.GrammarCompiler(info).compile_json_schema(json.dumps(SCHEMA))
        self._matcher = xgrammar.GrammarMatcher(compiled)
        self._mask = xgrammar.allocate_token_bitmask(1, size)

    def __call__(self, prompt: Sequence[int], output: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        if output:
            assert self._matcher.accept_token(output[-1])
        self._matcher.fill_next_token_bitmask(self._mask)
        allowed = torch.tensor([bool(self._mask[0, token // 32] >> (token % 32) & 1) for token in range(len(logits))])
        return logits.masked_fill(~allowed, float("-inf"))


def frequency(amount: float) -> Callable[..., torch.Tensor]:
    def process(prompt: Sequence[int], output: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        for token, count in Counter(output).items():
            logits[token] -= amount * count
        return logits

    return process


def presence(amount: float) -> Callable[..., torch.Tensor]:
    def process(prompt: Sequence[int], output: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        for token in set(output):
            logits[token] -= amount
        return logits

    return process


def one_step_late(process: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """With overlap scheduling SGLang prepares a step before it knows the last one's token, hooks or not."""

    def late(prompt: Sequence[int], output: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        return process(prompt, output[:-1], logits)

    return late


def repetition(factor: float) -> Callable[..., torch.Tensor]:
    def process(prompt: Sequence[int], output: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        for token in set(output):
            logits[token] = logits[token] / factor if logits[token] > 0 else logits[token] * factor
        return logits

    return process


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
    if served.setting.overlap:
        process = one_step_late(process)
    rng = random.Random(9)
    changed = 0
    async with client_of(served.url) as client:
        for _ in range(4):
            prompt = random_ids(rng, rng.randrange(1, 60))
            prompt += [served.oracle.answer("alpha", prompt, 1).tokens[0]]  # a last token that is likely to come again
            expected = served.oracle.processed_answer("alpha", prompt, 24, process)
            answer = await client.complete("alpha", prompt, 24, **fields)
            assert readable(answer["choices"][0]["text"]) == served.oracle.text(expected)
            changed += expected.tokens != served.oracle.answer("alpha", prompt, 24).tokens
    assert changed, "no penalty changed any answer: the test says nothing"
