"""From the chunks of a chat stream to the events of Anthropic's streams."""

from __future__ import annotations

from collections.abc import Iterator

from psserve.errors import RequestError
from psserve.router.dialect import Document, TranslatedEvents, encode
from psserve.router.messages.answer import error_body, prompt_usage, stop_of, tool_use, usage_of

EMPTY = {"text": {"type": "text", "text": ""}, "thinking": {"type": "thinking", "thinking": "", "signature": ""}}


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
            self._usage = usage_of(chunk["usage"])

    def end(self) -> Iterator[Document]:
        if self._index < 0:
            yield from self._enter("text", EMPTY["text"])
        yield from self._leave()
        yield {"type": "message_delta", "delta": self._stop, "usage": self._usage}
        yield {"type": "message_stop"}

    def fail(self, error: RequestError) -> bytes:
        return encode(error_body(error))

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
