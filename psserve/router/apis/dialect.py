"""Other APIs in front of chat completions: their requests become chat bodies, chat answers become theirs.

SGLang's own `/v1/messages` and `/v1/responses` take no pairing fields (0.5.18), and do the same translation inside one
server. Done here, both legs get one chat body, and routing, retries and checks see nothing new.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import orjson

from psserve.router.answers.streaming import DATA, DONE, SEPARATOR, Events
from psserve.router.body.checks import Body, invalid

Document = dict[str, Any]
KEPT_FIELDS = ("model", "stream", "temperature", "top_p", "cache_salt", "extra_key", "priority", "prompt_cache_key")
"""Fields that mean the same in every API."""


class TranslatedEvents(Events, ABC):
    """A chat stream of one choice in another form: named events."""

    def feed(self, data: bytes) -> bytes:
        return b"".join(encode_event(event) for event in self._translate(data))

    def _translate(self, data: bytes) -> Iterator[Document]:
        for event in data.split(SEPARATOR)[:-1]:
            if event == DONE:
                yield from self.end()
            else:
                yield from self.chunk(orjson.loads(event.removeprefix(DATA)))

    @abstractmethod
    def chunk(self, chunk: Document) -> Iterable[Document]:
        """The events for one chat chunk."""

    @abstractmethod
    def end(self) -> Iterable[Document]:
        """The events that end an answer; all its chunks were seen, the usage chunk too."""


class Translation(Protocol):
    """One request of another API."""

    chat: Body
    """The chat body that it means. Only its form is the translator's business, its values are checked like any."""

    def answer(self, document: Document) -> Document:
        """The answer to the client, from a chat completion of one choice."""

    def events(self) -> Events:
        """The same for a stream."""


def encode_event(event: Document) -> bytes:
    """A server-sent event that is named by its own `type`."""
    name: str = event["type"]
    return b"event: " + name.encode() + b"\n" + DATA + orjson.dumps(event) + SEPARATOR


def refuse_unknown(body: Body, known: Iterable[str], why: Mapping[str, str]) -> None:
    """Raises RequestError (400) for the first field outside `known`; `why` has the reasons we can name."""
    allowed = set(known)
    name = next((name for name in body if name not in allowed), None)
    if name is not None:
        reason = why.get(name, "it is not a field of this endpoint that psserve supports")
        raise invalid(name[:64], f"{name[:64]} is not supported: {reason}", "unsupported_parameter")


def kept(body: Body) -> Body:
    """The fields of `body` that a chat body takes as they are."""
    return {name: body[name] for name in KEPT_FIELDS if name in body}


def notes_in(usage: Document) -> Document:
    """What `usage` has beside its counts, see `Exchange.usage_note`: every form takes it as it is."""
    return {name: usage[name] for name in ("psserve_task",) if name in usage}


def object_of(value: Any, where: str) -> Document:
    """`value`, which must be an object. Raises RequestError (400)."""
    if not isinstance(value, dict):
        raise invalid(where, f"{where} must be an object", "invalid_type")
    return value


def list_of(value: Any, where: str) -> list[Any]:
    """`value`, which must be a list. Raises RequestError (400)."""
    if not isinstance(value, list):
        raise invalid(where, f"{where} must be a list", "invalid_type")
    return value


def string_of(parent: Document, name: str, where: str) -> str:
    """`parent[name]`, which must be a string; `where` is the parent's own name. Raises RequestError (400)."""
    value = parent.get(name)
    if not isinstance(value, str):
        full = f"{where}.{name}".lstrip(".")
        raise invalid(full, f"{full} must be a string", "invalid_type")
    return value
