"""From Anthropic's messages, made of content blocks, to chat messages."""

from __future__ import annotations

from typing import Any

import orjson

from psserve.errors import RequestError
from psserve.router.checks import invalid
from psserve.router.dialect import Document, object_of, string_of


def chat_messages(messages: list[Any]) -> list[Document]:
    """Raises RequestError (400), naming the block, for what has no form in a chat."""
    chat: list[Document] = []
    for index, message in enumerate(messages):
        chat += _message(object_of(message, f"messages[{index}]"), f"messages[{index}]")
    return chat


def text_of(content: Any, where: str) -> str:
    """A string, or text blocks joined by line ends as SGLang does it. Raises RequestError (400)."""
    if isinstance(content, str):
        return content
    return "\n".join(_text(block, name) for block, name in _blocks(content, where))


def _message(message: Document, where: str) -> list[Document]:
    role = message.get("role")
    if role not in ("user", "assistant", "system"):
        raise invalid(f"{where}.role", f"{where}.role must be user, assistant or system")
    content = message.get("content")
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if role == "assistant":
        return [_assistant(_blocks(content, f"{where}.content"))]
    if role == "system":
        return [{"role": role, "content": text_of(content, f"{where}.content")}]
    return _user(_blocks(content, f"{where}.content"))


def _user(blocks: list[tuple[Document, str]]) -> list[Document]:
    """Results of tools are messages of their own; the order of blocks is kept."""
    chat: list[Document] = []
    for block, where in blocks:
        if block["type"] == "tool_result":
            chat.append(_tool_result(block, where))
        else:
            _append_text(chat, {"type": "text", "text": _text(block, where)})
    return [_plain(message) for message in chat]


def _append_text(chat: list[Document], part: Document) -> None:
    if chat and chat[-1]["role"] == "user":
        chat[-1]["content"].append(part)
    else:
        chat.append({"role": "user", "content": [part]})


def _plain(message: Document) -> Document:
    """A single text as a string: what other APIs' requests have for the same words, so they are routed alike."""
    parts = message["content"]
    return message | {"content": parts[0]["text"]} if isinstance(parts, list) and len(parts) == 1 else message


def _tool_result(block: Document, where: str) -> Document:
    content = block.get("content")
    text = "" if content is None else text_of(content, f"{where}.content")
    return {"role": "tool", "tool_call_id": string_of(block, "tool_use_id", where), "content": text}


def _assistant(blocks: list[tuple[Document, str]]) -> Document:
    texts, thoughts, calls = [], [], []
    for block, where in blocks:
        if block["type"] == "thinking":
            thoughts.append(string_of(block, "thinking", where))
        elif block["type"] == "tool_use":
            calls.append(_call(block, where))
        else:
            texts.append(_text(block, where))
    message: Document = {"role": "assistant", "content": "".join(texts)}
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    if calls:
        message |= {"content": message["content"] or None, "tool_calls": calls}
    return message


def _call(block: Document, where: str) -> Document:
    arguments = orjson.dumps(object_of(block.get("input", {}), f"{where}.input")).decode()
    function = {"name": string_of(block, "name", where), "arguments": arguments}
    return {"id": string_of(block, "id", where), "type": "function", "function": function}


def _blocks(content: Any, where: str) -> list[tuple[Document, str]]:
    """Every block with its name in messages."""
    if not isinstance(content, list):
        raise invalid(where, f"{where} must be a string or a list of content blocks", "invalid_type")
    named = [(object_of(block, f"{where}[{index}]"), f"{where}[{index}]") for index, block in enumerate(content)]
    for block, name in named:
        string_of(block, "type", name)
    return named


def _text(block: Document, where: str) -> str:
    if block["type"] != "text":
        raise _unsupported(block["type"], where)
    return string_of(block, "text", where)


def _unsupported(kind: str, where: str) -> RequestError:
    message = f"{where}: a block of type {kind[:64]!r} is not supported here; this server reads text"
    return invalid(where, message, "unsupported_content_type")
