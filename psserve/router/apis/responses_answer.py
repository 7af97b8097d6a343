"""From the chunks of a chat stream to the events of the Responses API."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

from psserve.errors import RequestError
from psserve.router.answers.streaming import Events
from psserve.router.apis.dialect import Document, TranslatedEvents, encode_event, notes_in
from psserve.router.apis.responses_request import responses_to_chat
from psserve.router.body.checks import Body

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


class ResponsesTranslation:
    """See dialect.Translation."""

    def __init__(self, body: Body) -> None:
        """Raises RequestError (400) where `body` is not of the API's form."""
        self._body = body
        self.chat = responses_to_chat(body)

    def answer(self, document: Document) -> Document:
        return response_of(self._body, document)

    def events(self) -> Events:
        return ResponseEvents(self._body)


def response_of(body: Body, document: Document) -> Document:
    """The response to `body`, from a chat completion of one choice."""
    choice = document["choices"][0]
    response = response_begun(body, document) | response_ending(choice["finish_reason"])
    message = choice["message"]
    output: list[Document] = []
    if thoughts := message.get("reasoning_content"):
        output.append(reasoning_item(new_id("rs"), thoughts, "completed"))
    if text := message.get("content"):
        part = text_part(text, (choice.get("logprobs") or {}).get("content") or [])
        output.append(message_item(new_id("msg"), [part], response["status"]))
    for call in message.get("tool_calls") or ():
        output.append(call_item(new_id("fc"), call, "completed"))
    return response | {"output": output, "usage": responses_usage(document["usage"])}


def response_begun(body: Body, chunk: Document) -> Document:
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


def response_ending(finish_reason: str) -> Document:
    """`status` and its reason."""
    if finish_reason == "length":
        return {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    return {"status": "completed", "incomplete_details": None}


def responses_usage(usage: Document) -> Document:
    """The same counts under the Responses API's names."""
    counts = {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": usage["prompt_tokens_details"]["cached_tokens"]},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": usage.get("reasoning_tokens") or 0},
        "total_tokens": usage["prompt_tokens"] + usage["completion_tokens"],
    }
    return counts | notes_in(usage)


class ResponseEvents(TranslatedEvents):
    """created and in_progress, then each item's events, then completed or incomplete; numbered from 0."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._number = 0
        self._response: Document | None = None
        self._writer: Writer | None = None
        self._output: list[Document] = []
        self._logprobs: list[Document] = []
        """Of tokens that came without text: parts of a character, calls of tools, the end token."""
        self._ending = response_ending("stop")
        self._usage: Document = {}

    def chunk(self, chunk: Document) -> Iterator[Document]:
        return self._numbered(self._events(chunk))

    def end(self) -> Iterator[Document]:
        return self._numbered(self._last_events())

    def fail(self, error: RequestError) -> bytes:
        """OpenAI's flat fields, and the nested ones of its other errors: its clients raise on those."""
        fields = error.body()["error"]
        return encode_event({"type": "error", "sequence_number": self._number, **_flat(fields), "error": fields})

    def _numbered(self, events: Iterable[Document]) -> Iterator[Document]:
        for event in events:
            yield event | {"sequence_number": self._number}
            self._number += 1

    def _events(self, chunk: Document) -> Iterator[Document]:
        if self._response is None:
            self._response = response_begun(self._body, chunk)
            yield {"type": "response.created", "response": self._response}
            yield {"type": "response.in_progress", "response": self._response}
        for choice in chunk["choices"]:
            yield from self._delta(choice)
            if choice.get("finish_reason") is not None:
                self._ending = response_ending(choice["finish_reason"])
        if chunk.get("usage") and not chunk["choices"]:
            self._usage = responses_usage(chunk["usage"])

    def _last_events(self) -> Iterator[Document]:
        yield from self._close(self._ending["status"])
        for item in self._output:
            if item["type"] == "message" and item["content"]:
                item["content"][0]["logprobs"] += self._logprobs  # unstreamed, a message has those of all tokens
        assert self._response is not None, "a stream that ends well has at least its usage chunk"
        response = self._response | self._ending | {"output": self._output, "usage": self._usage}
        yield {"type": f"response.{response['status']}", "response": response}

    def _delta(self, choice: Document) -> Iterator[Document]:
        delta = choice["delta"]
        self._logprobs += (choice.get("logprobs") or {}).get("content") or []
        if thoughts := delta.get("reasoning_content"):
            yield from self._write(ReasoningWriter, thoughts, [])
        if text := delta.get("content"):
            logprobs, self._logprobs = self._logprobs, []
            yield from self._write(MessageWriter, text, logprobs)
        for call in delta.get("tool_calls") or ():
            if call["function"].get("name"):
                yield from self._open(CallWriter(self._place(), call))
            if (arguments := call["function"].get("arguments")) and self._writer is not None:
                yield from self._writer.write(arguments, [])

    def _write(
        self, kind: type[ReasoningWriter] | type[MessageWriter], text: str, logprobs: list[Document]
    ) -> Iterator[Document]:
        if not isinstance(self._writer, kind):
            yield from self._open(kind(self._place()))
        assert self._writer is not None, "it was just opened"
        yield from self._writer.write(text, logprobs)

    def _place(self) -> int:
        """The place of the next item in the output."""
        return len(self._output) + (self._writer is not None)

    def _open(self, writer: Writer) -> Iterator[Document]:
        yield from self._close("completed")
        self._writer = writer
        yield from writer.open()

    def _close(self, status: str) -> Iterator[Document]:
        if self._writer is not None:
            yield from self._writer.close(status)
            self._output.append(self._writer.item(status))
            self._writer = None


def _flat(fields: dict[str, str | None]) -> Document:
    return {name: fields[name] for name in ("code", "message", "param")}


class Writer(ABC):
    """The events of one item. `output_index` is its place in the output."""

    def __init__(self, output_index: int) -> None:
        self._index = output_index
        self._text = ""

    def open(self) -> Iterator[Document]:
        yield {"type": "response.output_item.added", "output_index": self._index, "item": self.item("in_progress")}

    @abstractmethod
    def write(self, text: str, logprobs: list[Document]) -> Iterator[Document]:
        """More of it."""

    @abstractmethod
    def item(self, status: str) -> Document:
        """The item as far as it is written."""

    def close(self, status: str) -> Iterator[Document]:
        yield {"type": "response.output_item.done", "output_index": self._index, "item": self.item(status)}


class _TextWriter(Writer):
    """An item of one text part."""

    prefix: str
    event: str

    def __init__(self, output_index: int) -> None:
        super().__init__(output_index)
        self._id = new_id(self.prefix)
        self._logprobs: list[Document] = []
        self._where = {"item_id": self._id, "output_index": output_index, "content_index": 0}

    def open(self) -> Iterator[Document]:
        yield from super().open()
        yield {"type": "response.content_part.added", **self._where, "part": self.part()}

    def write(self, text: str, logprobs: list[Document]) -> Iterator[Document]:
        self._text += text
        self._logprobs += logprobs
        yield {"type": f"response.{self.event}.delta", **self._where, "delta": text, "logprobs": logprobs}

    def close(self, status: str) -> Iterator[Document]:
        done = {"text": self._text, "logprobs": self._logprobs}
        yield {"type": f"response.{self.event}.done", **self._where, **done}
        yield {"type": "response.content_part.done", **self._where, "part": self.part()}
        yield from super().close(status)

    @abstractmethod
    def part(self) -> Document:
        """The part as far as it is written."""


class MessageWriter(_TextWriter):
    prefix, event = "msg", "output_text"

    def part(self) -> Document:
        return text_part(self._text, list(self._logprobs))

    def item(self, status: str) -> Document:
        return message_item(self._id, [self.part()] if self._text else [], status)


class ReasoningWriter(_TextWriter):
    prefix, event = "rs", "reasoning_text"

    def part(self) -> Document:
        return {"type": "reasoning_text", "text": self._text}

    def item(self, status: str) -> Document:
        return reasoning_item(self._id, self._text, status)


class CallWriter(Writer):
    """A function call; `write` adds to its arguments."""

    def __init__(self, output_index: int, call: Document) -> None:
        super().__init__(output_index)
        self._id = new_id("fc")
        function = {"name": call["function"]["name"]}
        self._call: Document = {"id": call.get("id") or new_id("call"), "function": function}
        self._where = {"item_id": self._id, "output_index": output_index}

    def write(self, text: str, logprobs: list[Document]) -> Iterator[Document]:
        self._text += text
        yield {"type": "response.function_call_arguments.delta", **self._where, "delta": text}

    def item(self, status: str) -> Document:
        function = self._call["function"] | {"arguments": self._text}
        return call_item(self._id, self._call | {"function": function}, status)

    def close(self, status: str) -> Iterator[Document]:
        done = {"name": self._call["function"]["name"], "arguments": self._text}
        yield {"type": "response.function_call_arguments.done", **self._where, **done}
        yield from super().close(status)


def text_part(text: str, logprobs: list[Document]) -> Document:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def message_item(item_id: str, content: list[Document], status: str) -> Document:
    return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": content}


def reasoning_item(item_id: str, thoughts: str, status: str) -> Document:
    content = [{"type": "reasoning_text", "text": thoughts}] if thoughts else []
    return {"id": item_id, "type": "reasoning", "summary": [], "content": content, "status": status}


def call_item(item_id: str, call: Document, status: str) -> Document:
    """The item of a chat's tool call, whose arguments may not be there yet."""
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
