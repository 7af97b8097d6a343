"""Clients that users have, unmodified: OpenAI's (blocking and async), and LangChain's chat model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import openai
import pytest
from pydantic import SecretStr

from tests.router.conftest import Fleet

if TYPE_CHECKING:
    from langchain_openai import (
        ChatOpenAI,  # takes seconds, in every process of a test run: here, only where it is used
    )

HELLO: Any = [{"role": "user", "content": "hello"}]
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "strict": True, "parameters": {"type": "object"}}}
    for name in ("add", "sub")
]


@pytest.fixture
async def client(fleet: Fleet) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=fleet.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def langchain(fleet: Fleet) -> ChatOpenAI:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(base_url=fleet.url + "/v1", api_key=SecretStr("none"), model="math", max_retries=0)


async def test_blocking_client(fleet: Fleet) -> None:
    def ask() -> tuple[str | None, str]:
        with openai.OpenAI(base_url=fleet.url + "/v1", api_key="none", max_retries=0) as client:
            whole = client.chat.completions.create(model="math", messages=HELLO, max_tokens=2)
            chunks = client.chat.completions.create(model="math", messages=HELLO, max_tokens=2, stream=True)
            return whole.choices[0].message.content, "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    assert await asyncio.to_thread(ask) == ("math-0 math-0", "math-0 math-0 ")


async def test_tools(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="math", messages=HELLO, tools=TOOLS, tool_choice="required")
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert [call.function.name for call in choice.message.tool_calls or ()] == ["add", "sub"]


async def test_tools_in_a_stream(client: openai.AsyncOpenAI) -> None:
    forced: Any = {"type": "function", "function": {"name": "sub"}}
    async with client.chat.completions.stream(model="math", messages=HELLO, tools=TOOLS, tool_choice=forced) as stream:
        answer = await stream.get_final_completion()
    call = (answer.choices[0].message.tool_calls or [])[0]
    assert (call.function.name, call.function.arguments) == ("sub", '{"left": 2, "right": 3}')


async def test_batched_completions_of_token_ids(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model="code", prompt=[[1, 2], [3, 4]], max_tokens=1, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 4)


async def test_langchain(langchain: ChatOpenAI) -> None:
    from langchain_core.messages import HumanMessage

    answer = await langchain.ainvoke([HumanMessage("hello")], max_tokens=2)
    assert answer.content == "math-0 math-0"
    assert answer.response_metadata["model_name"] == "math"
    pieces = [piece async for piece in langchain.astream("hello", max_tokens=2)]
    assert "".join(str(piece.content) for piece in pieces) == "math-0 math-0 "


async def test_langchain_tools(langchain: ChatOpenAI) -> None:
    from langchain_core.messages import AIMessage
    from langchain_core.tools import tool

    @tool
    def add(left: int, right: int) -> int:
        """Add two numbers."""
        return left + right

    answer = await langchain.bind_tools([add], tool_choice="any").ainvoke("2 + 3")
    assert isinstance(answer, AIMessage)
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("add", {"left": 2, "right": 3})]


async def test_langchain_over_the_responses_api(fleet: Fleet) -> None:
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(base_url=fleet.url + "/v1", api_key=SecretStr("none"), model="math", use_responses_api=True)
    answer = await model.ainvoke("hello", max_tokens=2)
    assert str(answer.text) == "math-0 math-0"
