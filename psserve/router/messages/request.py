"""From a body of Anthropic's Messages API to the chat body that it means."""

from __future__ import annotations

from typing import Any

from psserve.router.checks import Body, invalid, missing
from psserve.router.dialect import Document, kept, list_of, object_of, refuse_unknown, string_of
from psserve.router.messages.blocks import chat_messages, text_of
from psserve.router.messages.tools import chat_tool_choice, chat_tools

PROMPT_FIELDS = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config")
FIELDS = (
    *PROMPT_FIELDS, "max_tokens", "stop_sequences", "top_k", "stream", "temperature", "top_p", "metadata",
    "cache_salt", "extra_key", "priority", "prompt_cache_key",
)  # fmt: skip
HINTS = ("service_tier", "betas", "context_management", "inference_geo", "cache_control")
"""Say how Anthropic should serve, not what: nothing here depends on them."""
WHY = {
    "container": "there are no containers here",
    "mcp_servers": "this server calls no others",
}


def chat_body(body: Body) -> Body:
    """Raises RequestError (400), naming Anthropic's field, where `body` is not of the form."""
    refuse_unknown(body, (*FIELDS, *HINTS), WHY)
    if "max_tokens" not in body:
        raise missing("max_tokens")
    chat = kept(body) | {"max_tokens": body["max_tokens"]} | prompt_of(body)
    if "top_k" in body:
        chat["top_k"] = body["top_k"]
    if "stop_sequences" in body:
        chat["stop"] = list_of(body["stop_sequences"], "stop_sequences")
    if "user_id" in (metadata := object_of(body.get("metadata", {}), "metadata")):
        chat["user"] = metadata["user_id"]
    chat |= _output(object_of(body.get("output_config", {}), "output_config"))
    if body.get("stream"):
        chat["stream_options"] = {"include_usage": True}
    return chat


def count_body(body: Body) -> Body:
    """The chat fields that make up the prompt of a body of `/v1/messages/count_tokens`. Raises RequestError (400)."""
    refuse_unknown(body, (*PROMPT_FIELDS, *HINTS), WHY)
    return {"model": body.get("model")} | prompt_of(body)


def prompt_of(body: Body) -> Body:
    """The chat fields for the prompt."""
    if "messages" not in body:
        raise missing("messages")
    messages = chat_messages(list_of(body["messages"], "messages"))
    if body.get("system"):
        messages.insert(0, {"role": "system", "content": text_of(body["system"], "system")})
    chat: Body = {"messages": messages}
    if _is_begun(messages):
        chat["continue_final_message"] = True
    tools = chat_tools(list_of(body.get("tools", []), "tools"))
    if tools:
        chat["tools"] = tools
    if "tool_choice" in body:
        chat |= chat_tool_choice(object_of(body["tool_choice"], "tool_choice"))
    if "thinking" in body:
        chat["chat_template_kwargs"] = _thinking(object_of(body["thinking"], "thinking"))
    return chat


def _is_begun(messages: list[Document]) -> bool:
    """A last message of the assistant's is the beginning of the answer."""
    return bool(messages) and messages[-1]["role"] == "assistant" and isinstance(messages[-1].get("content"), str)


def _thinking(thinking: Document) -> Body:
    """Models differ in which of the two switches they look at. A budget of tokens cannot be kept, so none is."""
    kind = string_of(thinking, "type", "thinking")
    if kind not in ("enabled", "disabled", "adaptive"):
        raise invalid("thinking.type", "thinking.type must be enabled, disabled or adaptive")
    return {"thinking": kind != "disabled", "enable_thinking": kind != "disabled"}


def _output(config: Document) -> Body:
    chat: Body = {}
    if config.get("effort") is not None:
        chat["reasoning_effort"] = config["effort"]
    if (form := config.get("format")) is not None:
        chat["response_format"] = _format(object_of(form, "output_config.format"))
    return chat


def _format(form: Document) -> Any:
    if form.get("type") != "json_schema":
        raise invalid("output_config.format", "output_config.format.type must be json_schema")
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": form.get("schema")}}
