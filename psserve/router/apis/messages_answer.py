"""From the chunks of a chat stream to the events of Anthropic's streams."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from psserve.errors import RequestError
from psserve.router.answers.streaming import Events
from psserve.router.apis.dialect import Document, TranslatedEvents, encode_event, notes_in
from psserve.router.apis.messages_request import messages_to_chat
from psserve.router.body.checks import Body
from psserve.router.body.messages import arguments_of

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
EMPTY = {"text": {"type": "text", "text": ""}, "thinking": {"type": "thinking", "thinking": "", "signature": ""}}


class MessagesTranslation:
    """See dialect.Translation."""

    def __init__(self, body: Body) -> None:
        """Raises RequestError (400) where `body` is not of Anthropic's form."""
        self.chat = messages_to_chat(body)

    def answer(self, document: Document) -> Document:
        return message_of(document)

    def events(self) -> Events:
        return MessageEvents()


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
        "usage": messages_usage(document["usage"]),
    }


def stop_of(choice: Document) -> Document:
    """`stop_reason` and `stop_sequence` for the finished `choice`."""
    matched = choice.get("matched_stop")
    if choice["finish_reason"] == "stop" and isinstance(matched, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": matched}
    return {"stop_reason": STOP_REASONS.get(choice["finish_reason"], "end_turn"), "stop_sequence": None}


def messages_usage(usage: Document) -> Document:
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


def _blocks(message: Document) -> list[Document]:
    blocks: list[Document] = []
    if thoughts := message.get("reasoning_content"):
        blocks.append({"type": "thinking", "thinking": thoughts, "signature": ""})
    if text := message.get("content"):
        blocks.append({"type": "text", "text": text})
    calls = message.get("tool_calls") or ()
    return blocks + [tool_use(call) | {"input": arguments_of(call["function"].get("arguments"))} for call in calls]


def error_body(error: RequestError) -> Document:
    """Anthropic's error body."""
    fallback = "invalid_request_error" if error.status < 500 else "api_error"
    return {"type": "error", "error": {"type": ERROR_TYPES.get(error.status, fallback), "message": str(error)}}


class MessageEvents(TranslatedEvents):
    """message_start, then for each block its start, deltas and stop, then message_delta and message_stop."""

    def __init__(self) -> None:
        self._prompt = prompt_usage(0, 0)
        self._started = False
        self._index = -1
        self._open: str | None = None
        """Type of the block that is being written."""
        self._stop: Document = {"stop_reason": "end_turn", "stop_sequence": None}
        self._usage: Document = {}

    def begin(self, prompt_tokens: int, cached_tokens: int) -> None:
        self._prompt = prompt_usage(prompt_tokens, cached_tokens)

    def chunk(self, chunk: Document) -> Iterator[Document]:
        if not self._started:
            self._started = True
            yield self._message_start(chunk)
        for choice in chunk["choices"]:
            yield from self._delta(choice["delta"])
            if choice.get("finish_reason") is not None:
                self._stop = stop_of(choice)
        if chunk.get("usage") and not chunk["choices"]:
            self._usage = messages_usage(chunk["usage"])

    def end(self) -> Iterator[Document]:
        if self._index < 0:
            yield from self._enter("text", EMPTY["text"])
        yield from self._leave()
        yield {"type": "message_delta", "delta": self._stop, "usage": self._usage}
        yield {"type": "message_stop"}

    def fail(self, error: RequestError) -> bytes:
        return encode_event(error_body(error))

    def _message_start(self, chunk: Document) -> Document:
        message = {
            "id": f"msg_{chunk['id']}",
            "type": "message",
            "role": "assistant",
            "model": chunk["model"],
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self._prompt | {"output_tokens": 0},
        }
        return {"type": "message_start", "message": message}

    def _delta(self, delta: Document) -> Iterator[Document]:
        if thoughts := delta.get("reasoning_content"):
            yield from self._write("thinking", {"type": "thinking_delta", "thinking": thoughts})
        if text := delta.get("content"):
            yield from self._write("text", {"type": "text_delta", "text": text})
        for call in delta.get("tool_calls") or ():
            if call["function"].get("name"):
                yield from self._enter("tool_use", tool_use(call))
            if arguments := call["function"].get("arguments"):
                yield self._block_delta({"type": "input_json_delta", "partial_json": arguments})

    def _write(self, kind: str, delta: Document) -> Iterator[Document]:
        if self._open != kind:
            yield from self._enter(kind, EMPTY[kind])
        yield self._block_delta(delta)

    def _enter(self, kind: str, block: Document) -> Iterator[Document]:
        yield from self._leave()
        self._index += 1
        self._open = kind
        yield {"type": "content_block_start", "index": self._index, "content_block": block}

    def _leave(self) -> Iterator[Document]:
        if self._open is not None:
            self._open = None
            yield {"type": "content_block_stop", "index": self._index}

    def _block_delta(self, delta: Document) -> Document:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}
