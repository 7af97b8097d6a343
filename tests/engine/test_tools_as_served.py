"""The form in which psserve renders a client's tools and calls is the one in which the installed SGLang does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from psserve import torchvision_ops
from psserve.contracts.tools import call_as_served, tool_as_served
from psserve.router.body.chat import offered_tools
from tests.engine.release import only

torchvision_ops.declare_missing()

FUNCTIONS = {
    "all": {"parameters": {"type": "object"}, "strict": True, "name": "add", "description": "Adds."},
    "name alone": {"name": "add"},
    "nulls": {"strict": None, "description": None, "parameters": None, "name": "add"},
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_tools_are_rendered_as_sglang_shows_what_the_router_sends(function: dict[str, Any]) -> None:
    from sglang.srt.entrypoints.openai.protocol import Tool

    tool = {"function": function, "type": "function"}
    sent = offered_tools({"tools": [tool]})["tools"][0]
    assert json.dumps(Tool(**sent).model_dump()) == json.dumps(tool_as_served(tool))


CALLS = {
    "all": {"function": {"arguments": '{"b": 1, "a": 2}', "name": "add"}, "type": "function", "index": 0, "id": "1"},
    "few": {"function": {"name": "add", "arguments": "{}"}},
    "more": {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}", "parsed": None}, "extra": 1},
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_calls_are_rendered_as_sglang_shows_them(call: dict[str, Any]) -> None:
    from sglang.srt.entrypoints.openai.protocol import ToolCall
    from sglang.srt.entrypoints.openai.serving_chat import normalize_assistant_tool_call_arguments

    message = {"role": "assistant", "tool_calls": [ToolCall(**call).model_dump()]}
    normalize_assistant_tool_call_arguments(message)
    assert json.dumps(message["tool_calls"]) == json.dumps([call_as_served(call)])


@only(since="0.5.21")
def test_sglang_leaves_results_of_text_where_the_client_has_them() -> None:
    """For the router and training render them so. It moves pictures alone."""
    from sglang.srt.entrypoints.openai.serving_chat import OpenAIServingChat

    calls = [{"id": name, "type": "function", "function": {"name": "add", "arguments": {}}} for name in "ab"]
    results = [{"role": "tool", "tool_call_id": name, "content": [{"type": "text", "text": name}]} for name in "ba"]
    chat = [{"role": "assistant", "tool_calls": calls}, *results]
    assert OpenAIServingChat._canonicalize_tool_message_order(chat) == chat
    results[0]["content"] = [{"type": "image_url"}]
    assert OpenAIServingChat._canonicalize_tool_message_order(chat) == [chat[0], chat[2], chat[1]]
