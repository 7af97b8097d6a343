"""Checks of the fields that only chats have, and what the prefill leg gets of a forced tool."""

from __future__ import annotations

from typing import Any

from psserve.contracts.router_config import RouterConfig
from psserve.router.body.checks import INT32_MAX, Body, Check, check_int, invalid, missing

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
TEMPLATE_KWARGS = ("enable_thinking", "thinking", "reasoning_effort")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
MAX_EFFORT = 0.99
MAX_TOP_LOGPROBS = 20


def _check_messages(body: Body, name: str, config: RouterConfig) -> None:
    messages, limit = body[name], config.limits.messages
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
    if (calls := message.get("tool_calls")) is not None:
        if not isinstance(calls, list):
            raise invalid(f"{where}.tool_calls", f"{where}.tool_calls must be a list", "invalid_type")
        for index, call in enumerate(calls):
            _check_call(f"{where}.tool_calls[{index}]", call)


def _check_call(where: str, call: Any) -> None:
    """A call in a message of the assistant's. What its arguments say is the template's business."""
    if not isinstance(call, dict):
        raise invalid(where, f"{where} must be an object", "invalid_type")
    if call.get("type") not in (None, "function"):
        raise invalid(f"{where}.type", f"{where}.type must be function: calls of other kinds are not supported")
    function = call.get("function")
    if not isinstance(function, dict):
        raise invalid(f"{where}.function", f"{where}.function must be an object", "invalid_type")
    if not isinstance(function.get("name"), str):
        raise invalid(f"{where}.function.name", f"{where}.function.name must be a string", "invalid_type")
    if not isinstance(function.get("arguments"), (str, dict, type(None))):
        name = f"{where}.function.arguments"
        raise invalid(name, f"{name} must be JSON text", "invalid_type")


def _check_part(where: str, part: Any) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise invalid(where, f"{where} must be an object with a type", "invalid_type")
    if kind != "text":
        raise invalid(where, f"{where}: only text is supported, not {kind[:64]!r}", "unsupported_content_type")
    if not isinstance(part.get("text"), str):
        raise invalid(where, f"{where}.text must be a string", "invalid_type")


def _check_tools(body: Body, name: str, config: RouterConfig) -> None:
    tools, limit = body[name], config.limits.tools
    if not isinstance(tools, list) or len(tools) > limit:
        raise invalid(name, f"{name} must be a list of at most {limit}")
    for index, tool in enumerate(tools):
        if _function_name(tool) is None:
            raise invalid(name, f"{name}[{index}] must be a function with a name")
        _check_function(f"{name}[{index}].function", tool["function"])


def _check_function(where: str, function: dict[str, Any]) -> None:
    """What SGLang takes as it comes, and stumbles over when it renders the prompt or makes a grammar."""
    _check_kind(where, function, "description", str, "a string")
    _check_kind(where, function, "strict", bool, "true or false")
    _check_kind(where, function, "parameters", dict, "an object: a JSON schema")
    schema = function.get("parameters") or {}
    for part in ("$defs", "definitions", "properties"):
        _check_kind(f"{where}.parameters", schema, part, dict, "an object")
    for name, value in (schema.get("properties") or {}).items():
        if not isinstance(value, (dict, bool)):
            where = f"{where}.parameters.properties.{name[:64]}"
            raise invalid(where, f"{where} must be a JSON schema", "invalid_type")


def _check_kind(where: str, parent: dict[str, Any], name: str, kind: type, says: str) -> None:
    if not isinstance(parent.get(name), (kind, type(None))):
        raise invalid(f"{where}.{name}", f"{where}.{name} must be {says}", "invalid_type")


def _check_tool_choice(body: Body, name: str, config: RouterConfig) -> None:
    """`tools` was checked before."""
    choice, tools = body[name], body.get("tools") or []
    if isinstance(choice, dict):
        if _function_name(choice) not in map(_function_name, tools):
            raise invalid(name, f"{name} must name one of tools")
    elif choice not in ("none", "auto", "required"):
        raise invalid(name, f"{name} must be none, auto, required or a function")
    elif choice == "required" and not tools:
        raise invalid(name, f"{name} required needs tools")


def _function_name(tool: Any) -> str | None:
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) and name else None


def forced_tool(body: Body) -> Body:
    """What the prefill leg gets of `tool_choice`.

    A forced tool becomes the only tool offered: SGLang renders the same prompt, and compiles no grammar for it.
    """
    choice = body["tool_choice"]
    if isinstance(choice, dict):
        name = choice["function"]["name"]
        return {"tools": [tool for tool in body["tools"] if tool["function"]["name"] == name]}
    return {"tool_choice": "none"} if choice == "none" else {}


def _check_effort(body: Body, name: str, config: RouterConfig) -> None:
    """A word, or SGLang's finer number."""
    effort = body[name]
    if isinstance(effort, str) and effort in EFFORTS:
        return
    if type(effort) not in (int, float) or not 0 <= effort <= MAX_EFFORT:
        raise invalid(name, f"{name} must be one of {', '.join(EFFORTS)}, or 0 to {MAX_EFFORT}")


def _check_template_kwargs(body: Body, name: str, config: RouterConfig) -> None:
    """Only the switches of reasoning models: other variables could replace the template or how it is applied."""
    kwargs = body[name]
    if not isinstance(kwargs, dict):
        raise invalid(name, f"{name} must be an object")
    for key, value in kwargs.items():
        if key not in TEMPLATE_KWARGS or not isinstance(value, (bool, str, int, float)):
            raise invalid(name, f"{name} may hold {', '.join(TEMPLATE_KWARGS)} alone", "unsupported_parameter")


def _check_modalities(body: Body, name: str, config: RouterConfig) -> None:
    if body[name] != ["text"]:
        raise invalid(name, f"{name} can be text alone", "unsupported_parameter")


def _check_completion_tokens(body: Body, name: str, config: RouterConfig) -> None:
    check_int(body, name, 1, INT32_MAX)
    if body.get("max_tokens", body[name]) != body[name]:
        raise invalid(name, f"{name} and max_tokens differ: send one of them")


def _check_top_logprobs(body: Body, name: str, config: RouterConfig) -> None:
    check_int(body, name, 0, MAX_TOP_LOGPROBS)
    if body[name] and not body.get("logprobs"):
        raise invalid(name, f"{name} needs logprobs to be true")


def _refuse_json_schema(body: Body, name: str, config: RouterConfig) -> None:
    """SGLang's chat endpoint does not know it, and would answer without it."""
    raise invalid(name, f"{name} is not supported for chats: use response_format", "unsupported_parameter")


CHAT_MESSAGES = Check("1 to {messages} messages of text: nothing is fetched, no file is opened", _check_messages)
TOOLS = Check("at most {tools} functions", _check_tools)
TOOL_CHOICE = Check("none, auto, required or one of the tools", _check_tool_choice)
EFFORT = Check(f"one of {', '.join(EFFORTS)}, or a number from 0 to {MAX_EFFORT}", _check_effort)
TEMPLATE_SWITCHES = Check(f"{', '.join(TEMPLATE_KWARGS)} alone", _check_template_kwargs)
MODALITIES = Check("text alone", _check_modalities)
COMPLETION_TOKENS = Check("an integer of 1 or more; if max_tokens is there too, the same", _check_completion_tokens)
TOP_LOGPROBS = Check(f"an integer from 0 to {MAX_TOP_LOGPROBS}; with logprobs", _check_top_logprobs)
NO_JSON_SCHEMA = Check("refused: use response_format", _refuse_json_schema)
