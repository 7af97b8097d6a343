"""The Responses API: what OpenAI's client sends and can read, and what needs a memory and is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from psserve.errors import RequestError
from psserve.router.apis.responses_request import responses_to_chat
from psserve.router.body.messages import with_roles
from tests.router.conftest import Fleet

ADD = {"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": True}
REQUEST: dict[str, Any] = {"model": "math", "input": "hello", "max_output_tokens": 3}


@pytest.fixture
async def client(fleet: Fleet) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=fleet.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


async def test_response(client: openai.AsyncOpenAI, fleet: Fleet) -> None:
    fleet.prefill.cached_tokens = 4
    response = await client.responses.create(**REQUEST, instructions="be brief")
    assert response.output_text == "math-0 math-0 math-0"
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (response.instructions, response.store) == ("be brief", False)
    assert (response.usage.output_tokens, response.usage.input_tokens_details.cached_tokens) == (3, 4)
    assert fleet.math.bodies[-1]["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
    ]


async def test_stream(client: openai.AsyncOpenAI) -> None:
    whole = await client.responses.create(**REQUEST)
    events = [event async for event in await client.responses.create(**REQUEST, stream=True)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events if event.type != "response.output_text.delta"] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    last = events[-1].response
    assert (last.status, last.usage) == (whole.status, whole.usage)
    assert last.output_text == whole.output_text + " "


@pytest.mark.parametrize("streams", [False, True])
async def test_function_calls_side_by_side(client: openai.AsyncOpenAI, streams: bool) -> None:
    fields = REQUEST | {"tools": [ADD, ADD | {"name": "sub"}], "tool_choice": "required"}
    response = await _ask(client, streams, fields)
    assert [(item.type, item.name, item.call_id) for item in response.output] == [
        ("function_call", "add", "call_0"),
        ("function_call", "sub", "call_1"),
    ]
    assert {item.arguments for item in response.output} == {'{"left": 2, "right": 3}'}
    assert response.status == "completed"


@pytest.mark.parametrize("streams", [False, True])
async def test_reasoning(client: openai.AsyncOpenAI, streams: bool) -> None:
    response = await _ask(client, streams, REQUEST | {"reasoning": {"effort": "low"}})
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output[0].content[0].text == "Let me think."
    assert response.output_text == "Four."


async def test_logprobs(client: openai.AsyncOpenAI, fleet: Fleet) -> None:
    response = await client.responses.create(**REQUEST, include=["message.output_text.logprobs"], top_logprobs=2)
    assert response.output[0].content[0].logprobs[0].logprob < 0
    assert fleet.math.bodies[-1]["top_logprobs"] == 2


async def test_failure_in_a_stream_is_an_api_error(client: openai.AsyncOpenAI, fleet: Fleet) -> None:
    fleet.math.faults.append("error_mid_stream")
    fleet.math.proceed.set()
    with pytest.raises(openai.APIError) as caught:
        async for _ in await client.responses.create(**REQUEST, stream=True):
            pass
    assert caught.value.code == "upstream_error"


def test_a_tools_round_becomes_chat_messages() -> None:
    items = [
        {"role": "developer", "content": [{"type": "input_text", "text": "be kind"}]},
        {"role": "user", "content": "2 + 3"},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "5"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Five."}]},
    ]
    messages = responses_to_chat(REQUEST | {"instructions": "be brief", "input": items})["messages"]
    assert with_roles(messages, in_place=False) == [
        {"role": "system", "content": "be brief\n\nbe kind"},
        {"role": "user", "content": "2 + 3"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "5"},
        {"role": "assistant", "content": "Five."},
    ]


def test_a_schema_for_the_answer() -> None:
    form = {"type": "json_schema", "name": "sum", "schema": {"type": "object"}, "strict": True}
    chat = responses_to_chat(REQUEST | {"text": {"format": form}})
    nested = {"name": "sum", "schema": {"type": "object"}, "strict": True}
    assert chat["response_format"] == {"type": "json_schema", "json_schema": nested}


def _part(kind: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": kind, "image_url": "file:///etc/passwd"}]}]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": 5}, "input", "invalid_type"),
        ({"input": ["hi"]}, "input[0]", "invalid_type"),
        ({"input": [{"role": "god", "content": "hi"}]}, "input[0].role", "invalid_value"),
        ({"input": _part("input_image")}, "input[0].content[0]", "unsupported_content_type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]", "unsupported_content_type"),
        ({"input": [{"type": "reasoning", "encrypted_content": "x"}]}, "input[0]", "invalid_value"),
        ({"instructions": 5}, "instructions", "invalid_type"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "unsupported_parameter"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"background": True}, "background", "unsupported_parameter"),
        ({"truncation": "auto"}, "truncation", "unsupported_parameter"),
        ({"include": ["file_search_call.results"]}, "include", "unsupported_parameter"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]", "unsupported_parameter"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice", "invalid_value"),
        ({"n": 2}, "n", "unsupported_parameter"),
    ],
)
def test_refused(fields: dict[str, Any], param: str, code: str) -> None:
    body = {name: value for name, value in (REQUEST | fields).items() if value is not None}
    with pytest.raises(RequestError) as caught:
        responses_to_chat(body)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)


async def _ask(client: openai.AsyncOpenAI, streams: bool, fields: dict[str, Any]) -> Any:
    """The same response, whole or put together from a stream by the client."""
    if not streams:
        return await client.responses.create(**fields)
    async with client.responses.stream(**fields) as stream:
        return await stream.get_final_response()
