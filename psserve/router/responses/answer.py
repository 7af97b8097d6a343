"""From a chat completion to a response of the Responses API."""

from __future__ import annotations

import uuid
from typing import Any

from psserve.router.checks import Body
from psserve.router.dialect import Document, notes_in

ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "user": None,
    "reasoning": {"effort": None, "summary": None},
    "text": {"format": {"type": "text"}},
}
"""Fields of the request that a response repeats, with what they are when not given."""


def response_of(body: Body, document: Document) -> Document:
    """The response to `body`, from a chat completion of one choice."""
    choice = document["choices"][0]
    response = begun(body, document) | ending(choice["finish_reason"])
    message = choice["message"]
    output: list[Document] = []
    if thoughts := message.get("reasoning_content"):
        output.append(reasoning_item(new_id("rs"), thoughts, "completed"))
    if text := message.get("content"):
        part = text_part(text, (choice.get("logprobs") or {}).get("content") or [])
        output.append(message_item(new_id("msg"), [part], response["status"]))
    for call in message.get("tool_calls") or ():
        output.append(call_item(new_id("fc"), call, "completed"))
    return response | {"output": output, "usage": usage_of(document["usage"])}


def begun(body: Body, chunk: Document) -> Document:
    """The response while nothing is written, from any chunk or document of the chat."""
    return {
        "id": f"resp_{chunk['id']}",
        "object": "response",
        "created_at": chunk["created"],
        "model": chunk["model"],
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "output": [],
        "previous_response_id": None,
        "store": False,
        "truncation": "disabled",
        "usage": None,
    } | {name: body.get(name, default) for name, default in ECHOED.items()}


def ending(finish_reason: str) -> Document:
    """`status` and its reason."""
    if finish_reason == "length":
        return {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    return {"status": "completed", "incomplete_details": None}


def usage_of(usage: Document) -> Document:
    """The same counts under the Responses API's names."""
    counts = {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": usage["prompt_tokens_details"]["cached_tokens"]},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": usage.get("reasoning_tokens") or 0},
        "total_tokens": usage["prompt_tokens"] + usage["completion_tokens"],
    }
    return counts | notes_in(usage)


def text_part(text: str, logprobs: list[Document]) -> Document:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def message_item(item_id: str, content: list[Document], status: str) -> Document:
    return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": content}


def reasoning_item(item_id: str, thoughts: str, status: str) -> Document:
    content = [{"type": "reasoning_text", "text": thoughts}] if thoughts else []
    return {"id": item_id, "type": "reasoning", "summary": [], "content": content, "status": status}


def call_item(item_id: str, call: Document, status: str) -> Document:
    """Of a chat's tool call, whose arguments may not be there yet."""
    return {
        "id": item_id,
        "type": "function_call",
        "call_id": call.get("id") or new_id("call"),
        "name": call["function"]["name"],
        "arguments": call["function"].get("arguments") or "",
        "status": status,
    }


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"
