"""From a body of the Responses API to the chat body that it means."""

from __future__ import annotations

from typing import Any

from psserve.router.apis.dialect import Document, kept, list_of, object_of, refuse_unknown, string_of
from psserve.router.body.checks import Body, check_bool, invalid, missing

_FIELDS = (
    "model", "input", "instructions", "max_output_tokens", "stream", "temperature", "top_p", "text", "tools",
    "tool_choice", "parallel_tool_calls", "reasoning", "include", "top_logprobs", "metadata", "user", "store",
    "background", "truncation", "prompt_cache_key", "cache_salt", "extra_key", "priority",
)  # fmt: skip
_SAMPLING = ("top_k", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty", "stop")
"""SGLang's additions to the API."""
_HINTS = ("service_tier", "safety_identifier", "prompt_cache_retention", "stream_options", "max_tool_calls")
"""Say how OpenAI should serve, or limit tools that run at OpenAI: nothing here depends on them."""
_WHY = {
    "previous_response_id": "responses are not stored; send the whole conversation as input",
    "conversation": "conversations are not stored; send the whole one as input",
    "prompt": "there are no stored prompts",
}
_ROLES = ("user", "assistant", "system", "developer")
_TEXT_PARTS = ("input_text", "output_text", "text")
_LOGPROBS = "message.output_text.logprobs"
_INCLUDES = (_LOGPROBS, "reasoning.encrypted_content")
"""Reasoning is returned as plain text, so clients that ask for its encrypted form lose nothing."""
_TOOL_CHOICES = ("none", "auto", "required")


def responses_to_chat(body: Body) -> Body:
    """Raises RequestError (400), naming the field, where `body` is not of the form or needs a memory."""
    refuse_unknown(body, (*_FIELDS, *_SAMPLING, *_HINTS), _WHY)
    _check_stateless(body)
    chat = kept(body) | {name: body[name] for name in _SAMPLING if name in body} | _prompt(body)
    for name, chat_name in (("max_output_tokens", "max_completion_tokens"), ("user", "user")):
        if name in body:
            chat[chat_name] = body[name]
    chat |= _tools(body) | _reasoning(body) | _logprobs(body)
    if (form := object_of(body.get("text", {}), "text").get("format")) is not None:
        chat["response_format"] = _format(object_of(form, "text.format"))
    if body.get("stream"):
        chat["stream_options"] = {"include_usage": True}
    return chat


def _check_stateless(body: Body) -> None:
    check_bool(body, "background")
    if body.get("background"):
        message = "background is not supported: responses are not stored, the answer to this request is all there is"
        raise invalid("background", message, "unsupported_parameter")
    if body.get("truncation", "disabled") != "disabled":
        message = "truncation is not supported: a prompt that is too long is refused"
        raise invalid("truncation", message, "unsupported_parameter")
    object_of(body.get("metadata", {}), "metadata")


def _prompt(body: Body) -> Body:
    if "input" not in body:
        raise missing("input")
    instructions = string_of({"instructions": ""} | body, "instructions", "")
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else list_of(given, "input")
    return {"messages": _messages(instructions, items)}


def _messages(instructions: str, items: list[Any]) -> list[Document]:
    """Raises RequestError (400), naming the item.

    What the assistant did in one turn are several items but one message.
    """
    messages: list[Document] = [{"role": "system", "content": instructions}] if instructions else []
    for index, item in enumerate(items):
        message = _message(object_of(item, f"input[{index}]"), f"input[{index}]")
        if message["role"] == "assistant" and messages and messages[-1]["role"] == "assistant":
            _join(messages[-1], message)
        else:
            messages.append(message)
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
    if role not in _ROLES:
        raise invalid(f"{where}.role", f"{where}.role must be one of {', '.join(_ROLES)}")
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
    if kind not in _TEXT_PARTS:
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


def _tools(body: Body) -> Body:
    chat: Body = {}
    if tools := list_of(body.get("tools", []), "tools"):
        chat["tools"] = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]
    if "parallel_tool_calls" in body:
        chat["parallel_tool_calls"] = body["parallel_tool_calls"]
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        if choice.get("type") != "function":
            raise invalid("tool_choice", "tool_choice must be none, auto, required or a function")
        chat["tool_choice"] = {"type": "function", "function": {"name": string_of(choice, "name", "tool_choice")}}
    elif choice is not None:
        if choice not in _TOOL_CHOICES:
            raise invalid("tool_choice", "tool_choice must be none, auto, required or a function")
        chat["tool_choice"] = choice
    return chat


def _tool(given: Any, where: str) -> Document:
    tool = object_of(given, where)
    if tool.get("type") != "function":
        message = f"{where}: only functions are supported; tools that OpenAI's servers run are not"
        raise invalid(where, message, "unsupported_parameter")
    function = {name: tool[name] for name in ("description", "parameters", "strict") if tool.get(name) is not None}
    return {"type": "function", "function": {"name": string_of(tool, "name", where), **function}}


def _reasoning(body: Body) -> Body:
    effort = object_of(body.get("reasoning", {}), "reasoning").get("effort")
    return {} if effort is None else {"reasoning_effort": effort}


def _logprobs(body: Body) -> Body:
    include = list_of(body.get("include", []), "include")
    for name in include:
        if name not in _INCLUDES:
            raise invalid("include", f"include may hold {' and '.join(_INCLUDES)} alone", "unsupported_parameter")
    if _LOGPROBS not in include and not body.get("top_logprobs"):
        return {}
    return {"logprobs": True, "top_logprobs": body.get("top_logprobs", 0)}


def _format(form: Document) -> Any:
    """`text.format` is flat where chat's `response_format` is nested."""
    if form.get("type") != "json_schema":
        return form
    return {"type": "json_schema", "json_schema": {name: value for name, value in form.items() if name != "type"}}
