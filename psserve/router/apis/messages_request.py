"""From a body of Anthropic's Messages API to the chat body that it means."""

from __future__ import annotations

from typing import Any

import orjson

from psserve.errors import RequestError
from psserve.router.apis.dialect import Document, kept, list_of, object_of, refuse_unknown, string_of
from psserve.router.body.checks import Body, invalid, missing

_TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_PROMPT_FIELDS = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config")
_FIELDS = (
    *_PROMPT_FIELDS, "max_tokens", "stop_sequences", "top_k", "stream", "temperature", "top_p", "metadata",
    "cache_salt", "extra_key", "priority", "prompt_cache_key",
)  # fmt: skip
OWN_FIELDS = frozenset({"thinking"})
"""What /v1/messages and its count_tokens take though other endpoints refuse it."""
_HINTS = ("service_tier", "betas", "context_management", "inference_geo", "cache_control")
"""Say how Anthropic should serve, not what: nothing here depends on them."""
_WHY = {
    "container": "there are no containers here",
    "mcp_servers": "this server calls no others",
}


def messages_to_chat(body: Body) -> Body:
    """Raises RequestError (400), naming Anthropic's field, where `body` is not of the form."""
    refuse_unknown(body, (*_FIELDS, *_HINTS), _WHY)
    if "max_tokens" not in body:
        raise missing("max_tokens")
    chat = kept(body) | {"max_tokens": body["max_tokens"]} | _prompt(body)
    if "top_k" in body:
        chat["top_k"] = body["top_k"]
    if "stop_sequences" in body:
        chat["stop"] = list_of(body["stop_sequences"], "stop_sequences")
    if "user_id" in (metadata := object_of(body.get("metadata", {}), "metadata")):
        chat["user"] = metadata["user_id"]
    if (form := _output_config(body).get("format")) is not None:
        chat["response_format"] = _format(object_of(form, "output_config.format"))
    if body.get("stream"):
        chat["stream_options"] = {"include_usage": True}
    return chat


def count_body(body: Body) -> Body:
    """The chat fields that make up the prompt of a body of `/v1/messages/count_tokens`. Raises RequestError (400)."""
    refuse_unknown(body, (*_PROMPT_FIELDS, *_HINTS), _WHY)
    return {"model": body.get("model")} | _prompt(body)


def _prompt(body: Body) -> Body:
    """The chat fields for the prompt."""
    if "messages" not in body:
        raise missing("messages")
    messages = _messages(list_of(body["messages"], "messages"))
    if body.get("system"):
        messages.insert(0, {"role": "system", "content": _joined_text(body["system"], "system")})
    chat: Body = {"messages": messages}
    if _is_begun(messages):
        chat["continue_final_message"] = True
    tools = _tools(list_of(body.get("tools", []), "tools"))
    if tools:
        chat["tools"] = tools
    if "tool_choice" in body:
        chat |= _tool_choice(object_of(body["tool_choice"], "tool_choice"))
    if "thinking" in body:
        chat |= _thinking(object_of(body["thinking"], "thinking"))
    if (effort := _output_config(body).get("effort")) is not None:
        chat["reasoning_effort"] = effort
    return chat


def _is_begun(messages: list[Document]) -> bool:
    """A last message of the assistant's is the beginning of the answer."""
    last = messages[-1] if messages else {"role": "user"}
    return last["role"] == "assistant" and isinstance(last.get("content"), str) and "tool_calls" not in last


def _messages(messages: list[Any]) -> list[Document]:
    """Raises RequestError (400), naming the block, for what has no form in a chat."""
    chat: list[Document] = []
    for index, message in enumerate(messages):
        chat += _message(object_of(message, f"messages[{index}]"), f"messages[{index}]")
    return chat


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
        return [{"role": role, "content": _joined_text(content, f"{where}.content")}]
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
    text = "" if content is None else _joined_text(content, f"{where}.content")
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


def _joined_text(content: Any, where: str) -> str:
    """A string, or text blocks joined by line ends as SGLang does it. Raises RequestError (400)."""
    if isinstance(content, str):
        return content
    return "\n".join(_text(block, name) for block, name in _blocks(content, where))


def _unsupported(kind: str, where: str) -> RequestError:
    message = f"{where}: a block of type {kind[:64]!r} is not supported here; this server reads text"
    return invalid(where, message, "unsupported_content_type")


def _tools(tools: list[Any]) -> list[Document]:
    """Raises RequestError (400)."""
    return [_tool(object_of(tool, f"tools[{index}]"), f"tools[{index}]") for index, tool in enumerate(tools)]


def _tool(tool: Document, where: str) -> Document:
    if tool.get("type") not in (None, "custom"):
        message = f"{where}: tools that Anthropic's servers run are not supported; give it a name and an input_schema"
        raise invalid(where, message, "unsupported_parameter")
    schema = object_of(tool.get("input_schema"), f"{where}.input_schema")
    function: Document = {
        "name": string_of(tool, "name", where),
        "description": tool.get("description") or "",
        "parameters": {"type": "object"} | schema,
    }
    if tool.get("strict") is not None:
        function["strict"] = tool["strict"]
    return {"type": "function", "function": function}


def _tool_choice(choice: Document) -> Body:
    """`tool_choice`, and `parallel_tool_calls` when it says so. Raises RequestError (400)."""
    kind = string_of(choice, "type", "tool_choice")
    if kind == "tool":
        function = {"name": string_of(choice, "name", "tool_choice")}
        chat: Body = {"tool_choice": {"type": "function", "function": function}}
    elif kind in _TOOL_CHOICES:
        chat = {"tool_choice": _TOOL_CHOICES[kind]}
    else:
        raise invalid("tool_choice.type", "tool_choice.type must be auto, any, tool or none")
    is_single = choice.get("disable_parallel_tool_use")
    if not isinstance(is_single, bool | None):
        where = "tool_choice.disable_parallel_tool_use"
        raise invalid(where, f"{where} must be true or false", "invalid_type")
    if is_single:
        chat["parallel_tool_calls"] = False
    return chat


def _thinking(thinking: Document) -> Body:
    """Models differ in which of the two switches they look at. A budget of tokens cannot be kept, so none is.

    `adaptive` leaves it to the model, and so to what its template does by default.
    """
    kind = string_of(thinking, "type", "thinking")
    if kind not in ("enabled", "disabled", "adaptive"):
        raise invalid("thinking.type", "thinking.type must be enabled, disabled or adaptive")
    if kind == "adaptive":
        return {}
    return {"chat_template_kwargs": dict.fromkeys(("thinking", "enable_thinking"), kind == "enabled")}


def _output_config(body: Body) -> Document:
    return object_of(body.get("output_config", {}), "output_config")


def _format(form: Document) -> Any:
    if form.get("type") != "json_schema":
        raise invalid("output_config.format", "output_config.format.type must be json_schema")
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": form.get("schema")}}
