"""From the chunks of a chat stream to the events of the Responses API."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from psserve.errors import RequestError
from psserve.router.checks import Body
from psserve.router.dialect import Document, TranslatedEvents, encode
from psserve.router.responses.answer import begun, ending, usage_of
from psserve.router.responses.writers import CallWriter, MessageWriter, ReasoningWriter, Writer


class ResponseEvents(TranslatedEvents):
    """created and in_progress, then each item's events, then completed or incomplete; numbered from 0."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._number = 0
        self._response: Document | None = None
        self._writer: Writer | None = None
        self._output: list[Document] = []
        self._ending = ending("stop")
        self._usage: Document = {}

    def chunk(self, chunk: Document) -> Iterator[Document]:
        return self._numbered(self._events(chunk))

    def end(self) -> Iterator[Document]:
        return self._numbered(self._last_events())

    def fail(self, error: RequestError) -> bytes:
        """OpenAI's flat fields, and the nested ones of its other errors: its clients raise on those."""
        fields = error.body()["error"]
        return encode({"type": "error", "sequence_number": self._number, **_flat(fields), "error": fields})

    def _numbered(self, events: Iterable[Document]) -> Iterator[Document]:
        for event in events:
            yield event | {"sequence_number": self._number}
            self._number += 1

    def _events(self, chunk: Document) -> Iterator[Document]:
        if self._response is None:
            self._response = begun(self._body, chunk)
            yield {"type": "response.created", "response": self._response}
            yield {"type": "response.in_progress", "response": self._response}
        for choice in chunk["choices"]:
            yield from self._delta(choice)
            if choice.get("finish_reason") is not None:
                self._ending = ending(choice["finish_reason"])
        if chunk.get("usage") and not chunk["choices"]:
            self._usage = usage_of(chunk["usage"])

    def _last_events(self) -> Iterator[Document]:
        yield from self._close(self._ending["status"])
        assert self._response is not None, "a stream that ends well has at least its usage chunk"
        response = self._response | self._ending | {"output": self._output, "usage": self._usage}
        yield {"type": f"response.{response['status']}", "response": response}

    def _delta(self, choice: Document) -> Iterator[Document]:
        delta = choice["delta"]
        logprobs = (choice.get("logprobs") or {}).get("content") or []
        if thoughts := delta.get("reasoning_content"):
            yield from self._write(ReasoningWriter, thoughts, [])
        if text := delta.get("content"):
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
        """Of the next item in the output."""
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
