"""From a chat completion to a message of Anthropic's form; and errors in that form."""

from __future__ import annotations

import uuid
from typing import Any

import orjson

from psserve.errors import RequestError
from psserve.router.dialect import Document, notes_in

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def message_of(document: Document) -> Document:
    """The message for a chat completion of one choice."""
    choice = document["choices"][0]
    content = _blocks(choice["message"])
    return {
        "id": f"msg_{document['id']}",
        "type": "message",
        "role": "assistant",
        "model": document["model"],
        "content": content or [{"type": "text", "text": ""}],
        **stop_of(choice),
        "usage": usage_of(document["usage"]),
    }


def stop_of(choice: Document) -> Document:
    """`stop_reason` and `stop_sequence` for the finished `choice`."""
    matched = choice.get("matched_stop")
    if choice["finish_reason"] == "stop" and isinstance(matched, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": matched}
    return {"stop_reason": STOP_REASONS.get(choice["finish_reason"], "end_turn"), "stop_sequence": None}


def usage_of(usage: Document) -> Document:
    """Anthropic counts tokens read from a cache apart from those that were computed."""
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    counts = prompt_usage(usage["prompt_tokens"], cached) | {"output_tokens": usage["completion_tokens"]}
    return counts | notes_in(usage)


def prompt_usage(prompt_tokens: int, cached_tokens: int) -> Document:
    """The prompt's share of `usage`."""
    return {
        "input_tokens": prompt_tokens - cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached_tokens,
    }


def tool_use(call: Document) -> Document:
    """The block that begins the use of a tool; its input is still empty."""
    name = call["function"]["name"]
    return {"type": "tool_use", "id": call.get("id") or f"toolu_{uuid.uuid4().hex}", "name": name, "input": {}}


def error_body(error: RequestError) -> Document:
    """Anthropic's error body."""
    fallback = "invalid_request_error" if error.status < 500 else "api_error"
    return {"type": "error", "error": {"type": ERROR_TYPES.get(error.status, fallback), "message": str(error)}}


def _blocks(message: Document) -> list[Document]:
    blocks: list[Document] = []
    if thoughts := message.get("reasoning_content"):
        blocks.append({"type": "thinking", "thinking": thoughts, "signature": ""})
    if text := message.get("content"):
        blocks.append({"type": "text", "text": text})
    calls = message.get("tool_calls") or ()
    return blocks + [tool_use(call) | {"input": _input(call["function"].get("arguments"))} for call in calls]


def _input(arguments: Any) -> Document:
    """A model may write arguments that are no JSON object; the form has no place for them but a field of our own."""
    try:
        value = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else {"psserve_invalid_arguments": arguments}
