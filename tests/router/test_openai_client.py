"""The official client library against the router: what it can parse, it gets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest

from tests.router.conftest import Fleet


@pytest.fixture
async def client(fleet: Fleet) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=fleet.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


HELLO = [{"role": "user", "content": "hello"}]


async def test_chat(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="math", messages=HELLO, n=2, max_tokens=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


async def test_chat_stream(client: openai.AsyncOpenAI) -> None:
    options = {"include_usage": True}
    stream = await client.chat.completions.create(
        model="code", messages=HELLO, max_tokens=2, stream=True, stream_options=options
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content for chunk in chunks[:-1]) == "code-0 code-0 "
    assert chunks[-1].usage.completion_tokens == 2


async def test_models(client: openai.AsyncOpenAI) -> None:
    assert [model.id for model in (await client.models.list()).data] == ["math", "maths", "code"]


async def test_unknown_model(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="nobody", messages=HELLO)
    assert caught.value.code == "model_not_found"


async def test_failure_in_a_stream_is_an_api_error(client: openai.AsyncOpenAI, fleet: Fleet) -> None:
    fleet.math.faults.append("error_mid_stream")
    stream = await client.completions.create(model="math", prompt="some prompt", max_tokens=3, stream=True)
    await anext(stream)
    fleet.math.proceed.set()
    with pytest.raises(openai.APIError):
        await anext(stream)
