"""Server-sent events as OpenAI's API streams them: a JSON object in the data of each, `[DONE]` in the last one's.

This is how psserve's clients read a stream. The router, which passes its servers' streams on, looks at bytes instead
(psserve/router/answers/streaming.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson


class EventReader:
    """Reads one stream. `ended`: its `[DONE]` was seen; what comes later is passed over."""

    def __init__(self) -> None:
        self.ended = False
        self._rest = b""
        """Of a line that has not come whole."""

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Take in bytes, wherever they begin and end, and yield the events that are whole.

        Raises ValueError for data that is no JSON object.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if self.ended or not line.startswith(b"data:"):
                continue
            found = line[5:].strip()
            if found == b"[DONE]":
                self.ended = True
                continue
            event = orjson.loads(found)
            if not isinstance(event, dict):
                raise ValueError("an event is no JSON object")
            yield event
