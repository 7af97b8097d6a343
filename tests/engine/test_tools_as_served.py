"""The form in which psserve renders a client's tools is the one in which the installed SGLang does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from psserve import torchvision_ops
from psserve.contracts.tools import tool_as_served
from psserve.router.body.chat import offered_tools

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
