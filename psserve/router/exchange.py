"""What the router notes about one HTTP request while it serves it: for headers, log line and metrics."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from time import monotonic

from aiohttp import web

from psserve.router.dispatch import Legs
from psserve.router.task_routing.choice import Choice
from psserve.router.usage import Usage

SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


@dataclass
class Exchange:
    """Times are monotonic seconds."""

    request_id: str
    started: float = field(default_factory=monotonic)
    route: str = "-"
    module: str = "-"
    task: Choice | None = None
    """How the module was chosen, when the client left that to us."""
    prefill: str | None = None
    decode: str | None = None
    usage: Usage | None = None
    first_byte: float | None = None
    """When the client was sent the first streamed byte."""
    streamed_events: int = 0
    """Events that the client was sent: about as many as tokens."""
    failed: str | None = None
    """Code of an error that was sent inside a stream, under status 200."""
    overhead_s: float | None = None
    """Time spent here: before the legs were sent, and from the slower one's answer to the headers of ours."""
    _sent: float | None = None
    _answered: float | None = None

    @property
    def sent(self) -> float | None:
        """When the first legs that were answered had been sent."""
        return self._sent

    def paired(self, legs: Legs) -> None:
        """A sequence's legs have answered; the first one names the request's workers."""
        if self._sent is None:
            self.prefill, self.decode = legs.pair.prefill.name, legs.pair.decode.name
            self._sent = legs.started
        self._answered = max(legs.answered, self._answered or 0.0)

    def answered(self) -> None:
        """A decode worker's answer has arrived whole."""
        self._answered = monotonic()

    def usage_note(self) -> Usage:
        """What `usage` of the answer has beside the counts."""
        return {} if self.task is None else {"psserve_task": self.task.note()}

    def headers(self) -> dict[str, str]:
        """Headers of the answer, from what is known now. Takes the time spent here, so call it when they are sent."""
        if self._sent is not None and self._answered is not None:
            self.overhead_s = (self._sent - self.started) + (monotonic() - self._answered)
        headers = {"x-request-id": self.request_id}
        if self.module != "-":
            headers["x-psserve-module"] = self.module
        if self.task is not None:
            headers["x-psserve-task-confidence"] = f"{self.task.confidence:.4f}"
        if self.prefill is not None and self.decode is not None:
            headers["x-psserve-prefill"] = self.prefill
            headers["x-psserve-decode"] = self.decode
        if self.overhead_s is not None:
            headers["x-psserve-router-overhead-ms"] = f"{self.overhead_s * 1000:.3f}"
        return headers


EXCHANGE = web.RequestKey("exchange", Exchange)


def new_exchange(request: web.Request) -> Exchange:
    """Start notes for `request`, under the client's id for it when that is fit to be logged and echoed."""
    given = request.headers.get("x-request-id", "")
    exchange = Exchange(given if SANE_ID.fullmatch(given) else uuid.uuid4().hex)
    request[EXCHANGE] = exchange
    return exchange
