"""What is written in a stream of the Responses API: one item of the output at a time, from its opening to its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from psserve.router.dialect import Document
from psserve.router.responses.answer import call_item, message_item, new_id, reasoning_item, text_part


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
