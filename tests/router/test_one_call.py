"""`parallel_tool_calls: false`, and what other APIs call it: one call of a tool, whatever the module writes."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.router.conftest import Fleet

NAMES = ("add", "sub", "mul")
CHAT_TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in NAMES]
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "2 and 3?"}], "tools": CHAT_TOOLS}
FIRST = ("add", '{"left": 2, "right": 3}')


async def chat_calls(url: str, streams: bool, **fields: Any) -> list[tuple[list[tuple[str, str]], str]]:
    """Of each choice of a chat completion, by OpenAI's client: the calls, and why it ended."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        request = ASKED | {"model": "math", "tool_choice": "required"} | fields
        if not streams:
            answer = await client.chat.completions.create(**request)
            return [
                ([(call.function.name, call.function.arguments) for call in choice.message.tool_calls], reason)
                for choice, reason in ((choice, choice.finish_reason) for choice in answer.choices)
            ]
        found: dict[int, dict[int, list[str]]] = {}
        reasons: dict[int, str] = {}
        async for chunk in await client.chat.completions.create(**request, stream=True):
            for choice in chunk.choices:
                for call in choice.delta.tool_calls or ():
                    parts = found.setdefault(choice.index, {}).setdefault(call.index, [call.function.name or "", ""])
                    parts[1] += call.function.arguments or ""
                if choice.finish_reason:
                    reasons[choice.index] = choice.finish_reason
        return [([(name, text) for name, text in found[index].values()], reasons[index]) for index in sorted(found)]


@pytest.mark.parametrize("streams", [False, True])
async def test_one_call_is_left_and_the_answer_ends_with_it(fleet: Fleet, streams: bool) -> None:
    assert await chat_calls(fleet.url, streams, parallel_tool_calls=False) == [([FIRST], "tool_calls")]


@pytest.mark.parametrize("streams", [False, True])
async def test_one_call_of_each_of_several_answers(fleet: Fleet, streams: bool) -> None:
    found = await chat_calls(fleet.url, streams, parallel_tool_calls=False, n=3)
    assert found == [([FIRST], "tool_calls")] * 3


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("fields", [{}, {"parallel_tool_calls": True}])
async def test_else_all_calls_come(fleet: Fleet, streams: bool, fields: dict[str, Any]) -> None:
    assert await chat_calls(fleet.url, streams, **fields) == [([(name, FIRST[1]) for name in NAMES], "tool_calls")]


@pytest.mark.parametrize("streams", [False, True])
async def test_words_are_left_alone(fleet: Fleet, streams: bool) -> None:
    fields = ASKED | {"model": "math", "max_tokens": 3, "parallel_tool_calls": False, "stream": streams}
    if streams:
        plain = await fleet.stream("/v1/chat/completions", **fields | {"parallel_tool_calls": True})
        one = await fleet.stream("/v1/chat/completions", **fields)
        assert one[1].count(b"data: ") == plain[1].count(b"data: ")
    else:
        _, answer, _ = await fleet.post("/v1/chat/completions", fields)
        assert answer["choices"][0]["message"]["content"] == "math-0 math-0 math-0"
        assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("streams", [False, True])
async def test_responses(fleet: Fleet, streams: bool) -> None:
    tools: Any = [{"type": "function", "name": name, "parameters": {"type": "object"}} for name in NAMES]
    fields: Any = {"model": "math", "input": "2 and 3?", "tools": tools, "tool_choice": "required"}
    async with openai.AsyncOpenAI(base_url=f"{fleet.url}/v1", api_key="none", max_retries=0) as client:
        if streams:
            async with client.responses.stream(**fields, parallel_tool_calls=False) as stream:
                response = await stream.get_final_response()
        else:
            response = await client.responses.create(**fields, parallel_tool_calls=False)
    assert [(item.name, item.arguments) for item in response.output] == [FIRST]
    assert not response.parallel_tool_calls


@pytest.mark.parametrize("streams", [False, True])
async def test_messages(fleet: Fleet, streams: bool) -> None:
    import anthropic  # takes seconds, in every process of a test run: here, only where it is used

    tools: Any = [{"name": name, "input_schema": {"type": "object"}} for name in NAMES]
    fields: Any = {"model": "math", "max_tokens": 9, "messages": ASKED["messages"], "tools": tools}
    fields["tool_choice"] = {"type": "any", "disable_parallel_tool_use": True}
    async with anthropic.AsyncAnthropic(base_url=fleet.url, api_key="none", max_retries=0) as client:
        if streams:
            async with client.messages.stream(**fields) as stream:
                message = await stream.get_final_message()
        else:
            message = await client.messages.create(**fields)
    assert [(block.name, block.input) for block in message.content] == [("add", {"left": 2, "right": 3})]
    assert message.stop_reason == "tool_use"


async def test_in_messages_the_switch_is_true_or_false(fleet: Fleet) -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": "yes"}
    body = {"model": "math", "max_tokens": 9, "messages": ASKED["messages"], "tool_choice": choice}
    status, answer, _ = await fleet.post("/v1/messages", body)
    assert status == 400
    assert "tool_choice.disable_parallel_tool_use must be true or false" in answer["error"]["message"]


async def test_completions_know_nothing_of_it(fleet: Fleet) -> None:
    status, _, _ = await fleet.complete(parallel_tool_calls=False, tools=CHAT_TOOLS)
    assert status == 200
