"""Checks of the fields that only chats have, and what the prefill leg gets of a forced tool."""

from __future__ import annotations

from typing import Any

import orjson

from psserve.contracts.json_schema import Room
from psserve.contracts.router_config import RouterConfig
from psserve.contracts.tools import tool_as_served
from psserve.router.body.checks import Body, Check, check_int, check_schema, invalid
from psserve.router.body.output import check_answer_length

TASKS = ("action", "query", "authority", "domain", "title", "read_url")
MAX_TOP_LOGPROBS = 20


def _check_tools(body: Body, name: str, config: RouterConfig) -> None:
    tools, limit = body[name], config.limits.tools
    if not isinstance(tools, list) or len(tools) > limit:
        raise invalid(name, f"{name} must be a list of at most {limit}")
    for index, tool in enumerate(tools):
        if _function_name(tool) is None:
            raise invalid(name, f"{name}[{index}] must be a function with a name")
        _check_function(f"{name}[{index}].function", tool["function"])
    choice = body.get("tool_choice")
    _check_schemas(
        {
            f"{name}[{index}].function.parameters": tool["function"].get("parameters") or {}
            for index, tool in enumerate(tools)
            if _is_held_to_schema(tool["function"], choice)
        },
        config.limits.tool_bytes,
    )


def _check_schemas(schemas: dict[str, dict[str, Any]], most_bytes: int) -> None:
    """Schemas by the fields that they are in: decode servers make one grammar of them all."""
    room, left = Room(), most_bytes
    for where, schema in schemas.items():
        left -= len(orjson.dumps(schema))
        if left < 0:
            raise invalid(where, f"{where}: schemas that calls must follow have at most {most_bytes} bytes together")
        check_schema(schema, where, room)


def _is_held_to_schema(function: dict[str, Any], choice: Any) -> bool:
    """Whether a call's arguments must follow the function's schema: `choice` is not checked yet."""
    if isinstance(choice, dict):
        return _function_name(choice) == str(function["name"])
    return choice == "required" or (function.get("strict") is True and choice != "none")


def _check_function(where: str, function: dict[str, Any]) -> None:
    """What SGLang takes as it comes, and stumbles over when it renders the prompt or makes a grammar."""
    _check_kind(where, function, "description", str, "a string")
    _check_kind(where, function, "strict", bool, "true or false")
    _check_kind(where, function, "parameters", dict, "an object: a JSON schema")
    schema = function.get("parameters") or {}
    if schema.get("type", "object") != "object":
        message = f"{where}.parameters.type must be object: a call's arguments are one"
        raise invalid(f"{where}.parameters.type", message)
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


def offered_tools(body: Body) -> Body:
    """`tools` of a checked body as both legs get them; empty without any.

    Where the body names the tool to call, that one alone: SGLang renders no other, but its grammar would allow calls of
    all that it is given.
    """
    if not body.get("tools"):
        return {}
    choice, tools = body.get("tool_choice"), body["tools"]
    if isinstance(choice, dict):
        tools = [next(tool for tool in tools if _function_name(tool) == _function_name(choice))]
    return {"tools": [_in_one_order(tool) for tool in tools]}


def _in_one_order(tool: Body) -> Body:
    """A tool that all releases of SGLang render alike: 0.5.23 keeps a client's order, and adds nothing it left out."""
    ordered = tool_as_served(tool)["function"]
    return tool | {"function": ordered | tool["function"] | ordered}


def forced_tool(body: Body) -> Body:
    """What the prefill leg gets of `tool_choice`: a forced tool is the only one offered, and needs no grammar there."""
    return {"tool_choice": "none"} if body["tool_choice"] == "none" else {}


def _check_task(body: Body, name: str, config: RouterConfig) -> None:
    if body[name] not in TASKS:
        raise invalid(name, f"{name} must be one of {', '.join(TASKS)}")


def _check_modalities(body: Body, name: str, config: RouterConfig) -> None:
    if body[name] != ["text"]:
        raise invalid(name, f"{name} can be text alone", "unsupported_parameter")


def _check_completion_tokens(body: Body, name: str, config: RouterConfig) -> None:
    check_answer_length(body, name, config)
    if body.get("max_tokens", body[name]) != body[name]:
        raise invalid(name, f"{name} and max_tokens differ: send one of them")


def _check_top_logprobs(body: Body, name: str, config: RouterConfig) -> None:
    check_int(body, name, 0, MAX_TOP_LOGPROBS)
    if body[name] and not body.get("logprobs"):
        raise invalid(name, f"{name} needs logprobs to be true")


def _refuse_json_schema(body: Body, name: str, config: RouterConfig) -> None:
    """SGLang's chat endpoint does not know it, and would answer without it."""
    raise invalid(name, f"{name} is not supported for chats: use response_format", "unsupported_parameter")


TOOLS = Check("at most {tools} functions; schemas that calls must follow: {tool_bytes} bytes together", _check_tools)
TOOL_CHOICE = Check("none, auto, required or one of the tools", _check_tool_choice)
TASK = Check(f"one of {', '.join(TASKS)}", _check_task)
MODALITIES = Check("text alone", _check_modalities)
COMPLETION_TOKENS = Check("as max_tokens; if that is there too, the same", _check_completion_tokens)
TOP_LOGPROBS = Check(f"an integer from 0 to {MAX_TOP_LOGPROBS}; with logprobs", _check_top_logprobs)
NO_JSON_SCHEMA = Check("refused: use response_format", _refuse_json_schema)
