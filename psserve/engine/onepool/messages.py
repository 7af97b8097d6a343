"""What a decode server and a prefill server say to each other of one hand-over (its bootstrap room).

    decode -> prefill    WANT       tell me when the KV of this room is complete
    prefill -> decode    READY      it is: the numbers of its pages, and the row of SGLang's metadata
    decode -> prefill    TAKEN      the last, unfinished page is copied: the prefill server's request may end
    decode -> prefill    RELEASE    nobody reads these pages any more
    decode -> prefill    ABORT      whatever was lent for this room, or is about to be, is not wanted any more

From READY to RELEASE or ABORT the pages are the reader's: a *lease*.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

_HEAD = struct.Struct("!BQII")


class Kind(IntEnum):
    """What is said."""

    WANT = 1
    READY = 2
    TAKEN = 3
    RELEASE = 4
    ABORT = 5


@dataclass(frozen=True)
class Message:
    """One message. READY alone has `pages` (int32 each) and `metadata`."""

    kind: Kind
    room: int
    pages: bytes = b""
    metadata: bytes = b""


def packed(message: Message) -> bytes:
    """The message as it travels."""
    head = _HEAD.pack(message.kind, message.room, len(message.pages), len(message.metadata))
    return head + message.pages + message.metadata


class Unpacker:
    """Finds messages in a stream of bytes that comes in pieces of any size."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[Message]:
        """Yield what is complete now."""
        self._rest += piece
        while len(self._rest) >= _HEAD.size:
            kind, room, pages, metadata = _HEAD.unpack_from(self._rest)
            middle = _HEAD.size + pages
            end = middle + metadata
            if len(self._rest) < end:
                return
            yield Message(Kind(kind), room, self._rest[_HEAD.size : middle], self._rest[middle:end])
            self._rest = self._rest[end:]
