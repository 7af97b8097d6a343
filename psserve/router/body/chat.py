"""Checks on what only `/v1/chat/completions` has, and the prefill leg's share of it."""

from __future__ import annotations

from typing import Any

from psserve.contracts.limits import RequestLimits
from psserve.router.body.fields import MAX_TOP_LOGPROBS, Body, check_bool, check_int, invalid, missing

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
TEMPLATE_KWARGS = ("enable_thinking", "thinking", "reasoning_effort")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
MAX_EFFORT = 0.99
PROMPT_FIELDS = (
    "messages",
    "tools",
    "reasoning",
    "reasoning_effort",
    "chat_template_kwargs",
    "continue_final_message",
    "task",
)
"""Fields that change the tokens of the prompt (SGLang's serving_chat.py, _process_messages and below)."""


def check_chat(body: Body, limits: RequestLimits) -> None:
    """Raises RequestError (400)."""
    _check_messages(body, limits.messages)
    _check_tools(body, limits.tools)
    _check_template_kwargs(body.get("chat_template_kwargs"))
    for name in ("continue_final_message", "parallel_tool_calls", "logprobs", "separate_reasoning", "stream_reasoning"):
        check_bool(body, name)
    if "json_schema" in body:  # SGLang's chat endpoint does not know it, and would answer without it
        message = "json_schema is not supported for chats: use response_format"
        raise invalid("json_schema", message, "unsupported_parameter")
    _check_effort(body.get("reasoning_effort"))
    if body.get("modalities", ["text"]) != ["text"]:
        raise invalid("modalities", "modalities can be text alone", "unsupported_parameter")
    if body.get("max_tokens", limit := body.get("max_completion_tokens")) != limit and limit is not None:
        raise invalid("max_completion_tokens", "max_completion_tokens and max_tokens differ: send one of them")
    check_int(body, "top_logprobs", 0, MAX_TOP_LOGPROBS)
    if body.get("top_logprobs") and not body.get("logprobs"):
        raise invalid("top_logprobs", "top_logprobs needs logprobs to be true")


def prompt_part(body: Body) -> Body:
    """The fields of `body` that make up its prompt.

    A forced tool becomes the only tool offered: SGLang renders the same prompt, and compiles no grammar for it.
    """
    part = {name: body[name] for name in PROMPT_FIELDS if name in body}
    choice = body.get("tool_choice")
    if choice == "none":
        part["tool_choice"] = "none"
    elif isinstance(choice, dict):
        name = choice["function"]["name"]
        part["tools"] = [tool for tool in body["tools"] if tool["function"]["name"] == name]
    return part


def _check_messages(body: Body, limit: int) -> None:
    messages = body.get("messages")
    if messages is None:
        raise missing("messages")
    if not isinstance(messages, list):
        raise invalid("messages", "messages must be a list", "invalid_type")
    if not messages:
        raise invalid("messages", "messages must not be empty", "empty_array")
    if len(messages) > limit:
        raise invalid("messages", f"messages must be at most {limit}")
    for index, message in enumerate(messages):
        _check_message(f"messages[{index}]", message)


def _check_message(where: str, message: Any) -> None:
    if not isinstance(message, dict):
        raise invalid(where, f"{where} must be an object", "invalid_type")
    role = message.get("role")
    if role not in ROLES:
        raise invalid(f"{where}.role", f"{where}.role must be one of {', '.join(ROLES)}")
    content = message.get("content")
    if isinstance(content, list):
        for index, part in enumerate(content):
            _check_part(f"{where}.content[{index}]", part)
    elif not isinstance(content, str) and not (content is None and role == "assistant"):
        raise invalid(f"{where}.content", f"{where}.content must be a string or a list of text parts", "invalid_type")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise missing(f"{where}.tool_call_id")


def _check_part(where: str, part: Any) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise invalid(where, f"{where} must be an object with a type", "invalid_type")
    if kind != "text":
        raise invalid(where, f"{where}: only text is supported, not {kind[:64]!r}", "unsupported_content_type")
    if not isinstance(part.get("text"), str):
        raise invalid(where, f"{where}.text must be a string", "invalid_type")


def _check_tools(body: Body, limit: int) -> None:
    tools = body.get("tools", [])
    if not isinstance(tools, list) or len(tools) > limit:
        raise invalid("tools", f"tools must be a list of at most {limit}")
    names = set()
    for index, tool in enumerate(tools):
        name = _function_name(tool)
        if name is None:
            raise invalid("tools", f"tools[{index}] must be a function with a name")
        names.add(name)
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        if _function_name(choice) not in names:
            raise invalid("tool_choice", "tool_choice must name one of tools")
    elif choice not in (None, "none", "auto", "required"):
        raise invalid("tool_choice", "tool_choice must be none, auto, required or a function")
    elif choice == "required" and not names:
        raise invalid("tool_choice", "tool_choice required needs tools")


def _function_name(tool: Any) -> str | None:
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) and name else None


def _check_effort(effort: Any) -> None:
    """A word, or SGLang's finer number."""
    if effort is None or (isinstance(effort, str) and effort in EFFORTS):
        return
    if type(effort) not in (int, float) or not 0 <= effort <= MAX_EFFORT:
        raise invalid("reasoning_effort", f"reasoning_effort must be one of {', '.join(EFFORTS)}, or 0 to {MAX_EFFORT}")


def _check_template_kwargs(kwargs: Any) -> None:
    """Only the switches of reasoning models: other variables could replace the template or how it is applied."""
    if kwargs is None:
        return
    if not isinstance(kwargs, dict):
        raise invalid("chat_template_kwargs", "chat_template_kwargs must be an object")
    for name, value in kwargs.items():
        if name not in TEMPLATE_KWARGS or not isinstance(value, (bool, str, int, float)):
            allowed = ", ".join(TEMPLATE_KWARGS)
            message = f"chat_template_kwargs may hold {allowed} alone"
            raise invalid("chat_template_kwargs", message, "unsupported_parameter")
