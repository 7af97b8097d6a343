"""Messages of a chat: what each must be, and how those of other servers' answers are brought into a form to render."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from psserve.contracts.router_config import RouterConfig
from psserve.router.body.checks import Body, Check, check_shape, invalid, is_too_deep, missing

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
Message = dict[str, Any]
INVALID_ARGUMENTS = "psserve_invalid_arguments"
"""The argument that holds, as text, arguments that are no JSON object. They must be one in prompts."""
MAX_LEVELS = 200
"""Of lists and objects in arguments: what is nested deeper counts as no object. orjson reads 1,024 levels, but writes
254, and Messages answers have arguments inside."""


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
    # They are parsed to be rendered, and as texts they escaped the limits of the body.
    check_shape(",".join(_arguments_in(messages)).encode(), config.limits)


def _arguments_in(messages: list[Message]) -> Iterator[str]:
    for message in messages:
        for call in message.get("tool_calls") or ():
            if isinstance(text := call["function"].get("arguments"), str):
                yield text


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
    for name in ("name", "reasoning_content", "tool_call_id"):
        if not isinstance(message.get(name, ""), str | None):
            raise invalid(f"{where}.{name}", f"{where}.{name} must be a string", "invalid_type")
    calls = message.get("tool_calls")
    if not isinstance(calls, list | None):
        raise invalid(f"{where}.tool_calls", f"{where}.tool_calls must be a list", "invalid_type")
    for index, call in enumerate(calls or ()):
        _check_call(f"{where}.tool_calls[{index}]", call)


def _check_call(where: str, call: Any) -> None:
    """A call in a message of the assistant's. What its arguments say is the template's business."""
    if not isinstance(call, dict):
        raise invalid(where, f"{where} must be an object", "invalid_type")
    if call.get("type") not in (None, "function"):
        raise invalid(f"{where}.type", f"{where}.type must be function: calls of other kinds are not supported")
    if not isinstance(call.get("id"), str | None):
        raise invalid(f"{where}.id", f"{where}.id must be a string", "invalid_type")
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


def arguments_of(text: Any) -> Body:
    """A call's arguments as an object, whatever a model wrote: none, half an object, another value, too many levels."""
    if isinstance(text, dict):
        return text
    try:
        value = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) and not is_too_deep(value, MAX_LEVELS) else {INVALID_ARGUMENTS: text}


def with_readable_calls(messages: list[Message]) -> list[Message]:
    """Checked messages with arguments that can be rendered: SGLang refuses a history whose arguments are no object."""
    return [_readable(message) if message.get("tool_calls") else message for message in messages]


def _readable(message: Message) -> Message:
    calls = []
    for call in message["tool_calls"]:
        function = call["function"]
        given = function.get("arguments")
        arguments = arguments_of(given)
        is_kept = isinstance(given, str) and given and INVALID_ARGUMENTS not in arguments
        text = given if is_kept else orjson.dumps(arguments).decode()
        calls.append(call | {"type": "function", "function": function | {"arguments": text}})
    return message | {"tool_calls": calls}


def has_instructions_to_fit(messages: list[Message]) -> bool:
    """Whether `with_roles` would change checked messages for some template."""
    return has_instructions_between(messages) or any(message["role"] == "developer" for message in messages[:1])


def has_instructions_between(messages: list[Message]) -> bool:
    """Whether there are instructions after the first message: whether a template renders them must be tried."""
    return any(message["role"] in ("system", "developer") for message in messages[1:])


def with_roles(messages: list[Message], *, in_place: bool) -> list[Message]:
    """Messages in roles that the base's template renders, for all APIs.

    The developer's instructions are the system's: OpenAI's word for the same thing, which most templates leave out in
    silence. Where a template takes no system message between others (not `in_place`), all become one, at the front.
    """
    renamed = [message | {"role": "system"} if message["role"] == "developer" else message for message in messages]
    if in_place or not has_instructions_between(renamed):
        return renamed
    instructions = [message for message in renamed if message["role"] == "system"]
    text = "\n\n".join(_text_of(message) for message in instructions)
    others = [message for message in renamed if message["role"] != "system"]
    return [instructions[0] | {"content": text}, *others]


def _text_of(message: Message) -> str:
    """Parts are joined as SGLang joins them for templates that take strings."""
    content = message["content"]
    return content if isinstance(content, str) else " ".join(part["text"] for part in content)


CHAT_MESSAGES = Check("1 to {messages} messages of text: nothing is fetched, no file is opened", _check_messages)
