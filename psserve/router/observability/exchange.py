"""What the router notes about one HTTP request while it serves it: for headers, log line and metrics."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from aiohttp import web

from psserve.contracts.router_config import ModuleConfig
from psserve.router.access.server import SERVER
from psserve.router.observability.sequence import SequenceRecord
from psserve.router.task_routing.choice import ModuleChoice

SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


@dataclass
class Exchange:
    """Times are monotonic seconds."""

    request_id: str
    started: float = field(default_factory=monotonic)
    route: str = "-"
    module: str = "-"
    version: int | None = None
    """Of the module: counts replacements of its weights."""
    task: ModuleChoice | None = None
    """How the module was chosen, when the client left that to us."""
    prefill: str | None = None
    decode: str | None = None
    outcomes: tuple[str, str] | None = None
    """Why routing chose these two workers."""
    accepted: float | None = None
    """When its body had been read and checked."""
    key_name: str | None = None
    """Of the key that the client has."""
    retries: int = 0
    """Attempts that failed before those of `sequences`."""
    sequences: list[SequenceRecord] = field(default_factory=list)
    """Those whose workers have answered."""
    on_gap: Callable[[float], object] | None = None
    """Is told the seconds between arrivals of output, for metrics."""
    usage: dict[str, Any] | None = None
    """`usage` of the answer, once it is complete."""
    first_byte: float | None = None
    """When the client was sent the first streamed byte."""
    streamed_events: int = 0
    """Events that the client was sent: about as many as tokens."""
    code: str | None = None
    """How it ended: HTTP status, or the code of an error inside a stream."""
    trace_id: str | None = None
    failed: str | None = None
    """Code of an error that was sent inside a stream, under status 200."""
    overhead_s: float | None = None
    """Time spent here: before the legs were sent, and from the slower one's answer to the headers of ours."""
    sent: float | None = None
    """When the first legs that were answered had been sent."""
    _answered: float | None = None

    @property
    def is_work(self) -> bool:
        """Whether it asks for work. Endpoints that only tell have no route's name."""
        return self.route != "-"

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens that the base had cached; None before the usage is known."""
        return None if self.usage is None else int(self.usage["prompt_tokens_details"]["cached_tokens"])

    @property
    def shared_tokens(self) -> int:
        """Prompt tokens that the base had computed for another module; each prompt counts once."""
        return sum(sequence.shared_tokens for sequence in self.sequences if sequence.is_first)

    @property
    def decode_cached_tokens(self) -> int:
        """Tokens whose KV the decode worker had itself, over all sequences."""
        return sum(sequence.decode_cached_tokens for sequence in self.sequences)

    def accept(self, module: ModuleConfig) -> None:
        """The request was read and checked: it is for `module`."""
        self.module, self.version, self.accepted = module.name, module.version, monotonic()

    def paired(self, sequence: SequenceRecord) -> None:
        """Both legs of `sequence` have answered; the first one names the request's workers."""
        if self.sent is None:
            self.prefill, self.decode = sequence.prefill, sequence.decode
            self.sent, self.outcomes = sequence.started, sequence.outcomes
        sequence.on_gap = self.on_gap
        self.retries += sequence.attempt - 1
        self.sequences.append(sequence)
        self._answered = max(sequence.answered, self._answered or 0.0)

    def answered(self) -> None:
        """A decode worker's answer has arrived whole."""
        self._answered = monotonic()

    def usage_note(self) -> dict[str, Any]:
        """What `usage` of the answer has beside the counts."""
        return {} if self.task is None else {"psserve_task": self.task.note()}

    def headers(self) -> dict[str, str]:
        """Headers of the answer, from what is known now. Takes the time spent here, so call it when they are sent."""
        if self.sent is not None and self._answered is not None:
            self.overhead_s = (self.sent - self.started) + (monotonic() - self._answered)
        headers = {"Server": SERVER, "x-request-id": self.request_id}
        if self.module != "-":
            headers["x-psserve-module"] = self.module
        if self.version is not None:
            headers["x-psserve-module-version"] = str(self.version)
        if self.task is not None:
            headers["x-psserve-task"] = self.task.outcome
            headers["x-psserve-task-confidence"] = f"{self.task.confidence:.4f}"
        if self.prefill is not None and self.decode is not None:
            headers["x-psserve-prefill-worker"] = self.prefill
            headers["x-psserve-decode-worker"] = self.decode
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
