"""From the Responses API's input items to chat messages."""

from __future__ import annotations

from typing import Any

from psserve.router.checks import invalid
from psserve.router.dialect import Document, object_of, string_of

ROLES = ("user", "assistant", "system", "developer")
TEXT_PARTS = ("input_text", "output_text", "text")


def chat_messages(instructions: str, items: list[Any]) -> list[Document]:
    """Raises RequestError (400), naming the item.

    What the assistant did in one turn are several items but one message. Instructions go to the front, as one
    message, for most chat templates take a system message there alone.
    """
    system = [instructions] if instructions else []
    messages: list[Document] = []
    for index, item in enumerate(items):
        message = _message(object_of(item, f"input[{index}]"), f"input[{index}]")
        if message["role"] == "system":
            system.append(message["content"])
        elif message["role"] == "assistant" and messages and messages[-1]["role"] == "assistant":
            _join(messages[-1], message)
        else:
            messages.append(message)
    if system:
        messages.insert(0, {"role": "system", "content": "\n\n".join(system)})
    return messages


def _message(item: Document, where: str) -> Document:
    kind = item.get("type", "message")
    if kind == "message":
        return _spoken(item, where)
    if kind == "function_call":
        function = {name: string_of(item, name, where) for name in ("name", "arguments")}
        call = {"id": string_of(item, "call_id", where), "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if kind == "function_call_output":
        call_id = string_of(item, "call_id", where)
        return {"role": "tool", "tool_call_id": call_id, "content": _text(item.get("output"), f"{where}.output")}
    if kind == "reasoning":
        return {"role": "assistant", "content": None, "reasoning_content": _thoughts(item, where)}
    if kind == "item_reference":
        message = f"{where}: items are not stored; send the item itself"
    else:
        message = f"{where}: an item of type {str(kind)[:64]!r} is not supported"
    raise invalid(where, message, "unsupported_content_type")


def _spoken(item: Document, where: str) -> Document:
    role = item.get("role")
    if role not in ROLES:
        raise invalid(f"{where}.role", f"{where}.role must be one of {', '.join(ROLES)}")
    role = "system" if role == "developer" else role
    return {"role": role, "content": _text(item.get("content"), f"{where}.content")}


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise invalid(where, f"{where} must be a string or a list of text parts", "invalid_type")
    return "".join(_part(part, f"{where}[{index}]") for index, part in enumerate(content))


def _part(given: Any, where: str) -> str:
    part = object_of(given, where)
    kind = string_of(part, "type", where)
    if kind not in TEXT_PARTS:
        message = f"{where}: a part of type {kind[:64]!r} is not supported here; this server reads text"
        raise invalid(where, message, "unsupported_content_type")
    return string_of(part, "text", where)


def _thoughts(item: Document, where: str) -> str:
    """An earlier answer's reasoning: its text, or the summary of one that another server made."""
    parts = item.get("content") or item.get("summary") or []
    if not parts and item.get("encrypted_content"):
        raise invalid(where, f"{where}: encrypted reasoning cannot be read here; leave the item out")
    if not isinstance(parts, list):
        raise invalid(where, f"{where}.content must be a list", "invalid_type")
    return "\n".join(string_of(object_of(part, where), "text", where) for part in parts)


def _join(message: Document, more: Document) -> None:
    texts = [text for text in (message.get("content"), more.get("content")) if text]
    message["content"] = "\n\n".join(texts) or None
    if thoughts := more.get("reasoning_content"):
        message["reasoning_content"] = "\n".join(filter(None, (message.get("reasoning_content"), thoughts)))
    if calls := more.get("tool_calls"):
        message["tool_calls"] = message.get("tool_calls", []) + calls
