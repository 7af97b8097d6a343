"""Anthropic's Messages API: what its official client sends and can read, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from psserve.errors import RequestError
from psserve.router.apis.messages_answer import message_of
from psserve.router.apis.messages_request import messages_to_chat
from tests.router.conftest import Fleet
from tests.router.fake_worker import prompt_tokens

if TYPE_CHECKING:
    import anthropic  # takes seconds, in every process of a test run: here, only where it is used

HELLO = [{"role": "user", "content": "hello"}]
ADD = {"name": "add", "input_schema": {"properties": {"left": {"type": "integer"}}}}
REQUEST: dict[str, Any] = {"model": "math", "max_tokens": 3, "messages": HELLO}


@pytest.fixture
async def client(fleet: Fleet) -> AsyncIterator[anthropic.AsyncAnthropic]:
    import anthropic

    async with anthropic.AsyncAnthropic(base_url=fleet.url, api_key="none", max_retries=0) as client:
        yield client


async def test_message(client: anthropic.AsyncAnthropic, fleet: Fleet) -> None:
    fleet.prefill.cached_tokens = 4
    message = await client.messages.create(**REQUEST, system="be brief")
    assert message.content[0].text == "math-0 math-0 math-0"
    assert (message.stop_reason, message.model) == ("max_tokens", "math")
    read = prompt_tokens(fleet.math.bodies[-1])
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (read - 4, 4)
    assert fleet.math.bodies[-1]["messages"][0] == {"role": "system", "content": "be brief"}
    assert fleet.prefill.bodies[-1]["messages"] == fleet.math.bodies[-1]["messages"]


async def test_stream(client: anthropic.AsyncAnthropic) -> None:
    whole = await client.messages.create(**REQUEST)
    async with client.messages.stream(**REQUEST) as stream:
        kinds = [event.type async for event in stream]
        message = await stream.get_final_message()
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert message.content[0].text == whole.content[0].text + " "
    assert (message.stop_reason, message.usage) == (whole.stop_reason, whole.usage)


@pytest.mark.parametrize("streams", [False, True])
async def test_tools_are_used_side_by_side(client: anthropic.AsyncAnthropic, streams: bool) -> None:
    fields = REQUEST | {"tools": [ADD, ADD | {"name": "sub"}], "tool_choice": {"type": "any"}}
    message = await _ask(client, streams, fields)
    assert [(block.name, block.input) for block in message.content] == [
        ("add", {"left": 2, "right": 3}),
        ("sub", {"left": 2, "right": 3}),
    ]
    assert message.stop_reason == "tool_use"


@pytest.mark.parametrize("streams", [False, True])
async def test_thinking(client: anthropic.AsyncAnthropic, streams: bool) -> None:
    message = await _ask(client, streams, REQUEST | {"thinking": {"type": "enabled", "budget_tokens": 1024}})
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].thinking == "Let me think."
    assert message.stop_reason == "end_turn"


@pytest.mark.parametrize("streams", [False, True])
async def test_stop_sequence(client: anthropic.AsyncAnthropic, streams: bool) -> None:
    message = await _ask(client, streams, REQUEST | {"stop_sequences": ["END"]})
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")


async def test_errors_have_anthropics_form(client: anthropic.AsyncAnthropic, fleet: Fleet) -> None:
    import anthropic

    with pytest.raises(anthropic.NotFoundError) as caught:
        await client.messages.create(**REQUEST | {"model": "nobody"})
    assert caught.value.body == {
        "type": "error",
        "error": {"type": "not_found_error", "message": "the model 'nobody' does not exist"},
    }


async def test_failure_in_a_stream_is_an_error(client: anthropic.AsyncAnthropic, fleet: Fleet) -> None:
    import anthropic

    fleet.math.faults.append("error_mid_stream")
    fleet.math.proceed.set()
    with pytest.raises(anthropic.APIStatusError):
        async with client.messages.stream(**REQUEST) as stream:
            await stream.get_final_message()


async def test_count_tokens(client: anthropic.AsyncAnthropic) -> None:
    counted = await client.messages.count_tokens(model="math", messages=HELLO)
    assert counted.input_tokens == (await client.messages.create(**REQUEST)).usage.input_tokens


def test_a_tools_round_becomes_chat_messages() -> None:
    call = {"type": "tool_use", "id": "t1", "name": "add", "input": {"left": 2}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "5"}]}
    messages = [
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""}, call]},
        {"role": "user", "content": [result, {"type": "text", "text": "and now?"}]},
    ]
    assert messages_to_chat(REQUEST | {"messages": messages})["messages"] == [
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "add", "arguments": '{"left":2}'}}],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "5"},
        {"role": "user", "content": "and now?"},
    ]


@pytest.mark.parametrize("levels", [199, 300])
def test_arguments_of_any_number_of_levels_make_an_answer(levels: int) -> None:
    text = '{"a":' + "[" * levels + "]" * levels + "}"
    call = {"id": "t1", "type": "function", "function": {"name": "add", "arguments": text}}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 0}}
    choice = {"finish_reason": "tool_calls", "message": {"content": None, "tool_calls": [call]}}
    answer = message_of({"id": "1", "model": "math", "choices": [choice], "usage": usage})
    (block,) = orjson.loads(orjson.dumps(answer))["content"]
    assert block["input"] == (orjson.loads(text) if levels < 200 else {"psserve_invalid_arguments": text})


def test_an_answer_that_was_begun_is_continued() -> None:
    begun = [*HELLO, {"role": "assistant", "content": "It is"}]
    assert messages_to_chat(REQUEST | {"messages": begun})["continue_final_message"]
    assert "continue_final_message" not in messages_to_chat(REQUEST)


def _block(kind: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": kind} | fields]}]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"max_tokens": None}, "max_tokens", "missing_required_parameter"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"messages": ["hi"]}, "messages[0]", "invalid_type"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        ({"messages": _block("image", source={})}, "messages[0].content[0]", "unsupported_content_type"),
        ({"messages": _block("text")}, "messages[0].content[0].text", "invalid_type"),
        ({"messages": _block("tool_result")}, "messages[0].content[0].tool_use_id", "invalid_type"),
        ({"system": 5}, "system", "invalid_type"),
        ({"stop_sequences": "END"}, "stop_sequences", "invalid_type"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]", "unsupported_parameter"),
        ({"tools": [{"name": "add"}]}, "tools[0].input_schema", "invalid_type"),
        ({"tool_choice": {"type": "maybe"}}, "tool_choice.type", "invalid_value"),
        ({"thinking": {"type": "perhaps"}}, "thinking.type", "invalid_value"),
        ({"mcp_servers": []}, "mcp_servers", "unsupported_parameter"),
        ({"n": 2}, "n", "unsupported_parameter"),
    ],
)
def test_refused(fields: dict[str, Any], param: str, code: str) -> None:
    body = {name: value for name, value in (REQUEST | fields).items() if value is not None}
    with pytest.raises(RequestError) as caught:
        messages_to_chat(body)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)


async def _ask(client: anthropic.AsyncAnthropic, streams: bool, fields: dict[str, Any]) -> anthropic.types.Message:
    """The same message, whole or put together from a stream by the client."""
    if not streams:
        return await client.messages.create(**fields)
    async with client.messages.stream(**fields) as stream:
        return await stream.get_final_message()


def test_a_strict_tool_stays_strict() -> None:
    chat = messages_to_chat(REQUEST | {"tools": [ADD | {"strict": True}, ADD | {"name": "sub"}]})
    assert [tool["function"].get("strict") for tool in chat["tools"]] == [True, None]


def test_a_last_message_that_calls_a_tool_is_not_gone_on_with() -> None:
    content = [{"type": "text", "text": "Let me"}, {"type": "tool_use", "id": "t1", "name": "add", "input": {}}]
    chat = messages_to_chat(REQUEST | {"messages": [*HELLO, {"role": "assistant", "content": content}]})
    assert "continue_final_message" not in chat
    assert chat["messages"][-1]["tool_calls"]
