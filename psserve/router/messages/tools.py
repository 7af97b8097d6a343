"""From Anthropic's tools to those of chat completions."""

from __future__ import annotations

from typing import Any

from psserve.router.checks import Body, invalid
from psserve.router.dialect import Document, object_of, string_of

CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def chat_tools(tools: list[Any]) -> list[Document]:
    """Raises RequestError (400)."""
    return [_tool(object_of(tool, f"tools[{index}]"), f"tools[{index}]") for index, tool in enumerate(tools)]


def chat_tool_choice(choice: Document) -> Body:
    """`tool_choice`, and `parallel_tool_calls` when it says so. Raises RequestError (400)."""
    kind = string_of(choice, "type", "tool_choice")
    if kind == "tool":
        function = {"name": string_of(choice, "name", "tool_choice")}
        chat: Body = {"tool_choice": {"type": "function", "function": function}}
    elif kind in CHOICES:
        chat = {"tool_choice": CHOICES[kind]}
    else:
        raise invalid("tool_choice.type", "tool_choice.type must be auto, any, tool or none")
    if choice.get("disable_parallel_tool_use"):
        chat["parallel_tool_calls"] = False
    return chat


def _tool(tool: Document, where: str) -> Document:
    if tool.get("type") not in (None, "custom"):
        message = f"{where}: tools that Anthropic's servers run are not supported; give it a name and an input_schema"
        raise invalid(where, message, "unsupported_parameter")
    schema = object_of(tool.get("input_schema"), f"{where}.input_schema")
    function = {
        "name": string_of(tool, "name", where),
        "description": tool.get("description") or "",
        "parameters": {"type": "object"} | schema,
    }
    return {"type": "function", "function": function}
