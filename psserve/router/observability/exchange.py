"""What the router notes about one HTTP request and its sequences while it serves them: for headers, log, metrics."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from aiohttp import web

from psserve.contracts.router_config import VERSION_HEADER, ModuleConfig
from psserve.router.access.server import SERVER
from psserve.router.task_routing.choice import ModuleChoice

UNFINISHED = b'"finish_reason":null'
"""What is in every event that carries output and is not the last; in none of those that close a stream."""


class LegSpan:
    """The span of one leg. This one: of a request that is not traced."""

    headers: Mapping[str, str] = {}
    """Headers for the worker, so that its own spans become children."""

    def end(self, error: BaseException | None = None, events: Mapping[str, float | None] | None = None) -> None:
        """The leg is over. `events`: name -> when (monotonic seconds), None: did not happen. Later calls do nothing."""


UNTRACED = LegSpan()


@dataclass
class SequenceRecord:
    """What became of one sequence on its pair of workers. Times are monotonic seconds."""

    is_first: bool
    """The first, or only, choice of its prompt."""
    started: float
    """The legs were sent."""
    prefill: str = "-"
    """Name of the prefill worker."""
    decode: str = "-"
    """Name of the decode worker."""
    outcomes: tuple[str, str] | None = None
    """Why routing chose these two; None: it did not."""
    attempt: int = 1
    """Which one of the sequence this is."""
    answered: float = 0.0
    """The slower leg had answered."""
    prefilled: float = 0.0
    """The prefill leg had answered: the base has computed the prompt and its KV is delivered."""
    prompt_tokens: int = 0
    """Tokens that the base computed or had cached: all but the prompt's last."""
    shared_tokens: int = 0
    """Cached tokens that the base had computed for another module (see shared_prefix.py)."""
    decode_cached_tokens: int = 0
    """Tokens whose KV the decode worker had itself."""
    output_tokens: int = 0
    first_output: float | None = None
    """When the first output of a stream came, or the whole of an answer that is not streamed."""
    last_output: float | None = None
    decode_span: LegSpan = UNTRACED
    on_gap: Callable[[float], object] | None = None
    """A function that is told the seconds between one arrival of a stream's output and the next."""

    def whole(self) -> None:
        """The answer, which is not streamed, came."""
        self.first_output = self.last_output = monotonic()

    def arrived(self, data: bytes) -> None:
        """`data` of the answer's stream came."""
        now = monotonic()
        if self.first_output is None:
            self.first_output = now
        elif self.last_output is not None and self.on_gap is not None and UNFINISHED in data:
            self.on_gap(now - self.last_output)
        self.last_output = now

    def end_span(self, error: BaseException | None = None) -> None:
        """The decode leg is over."""
        self.decode_span.end(error, {"first output": self.first_output, "last output": self.last_output})

    @property
    def transferred_tokens(self) -> int:
        """Tokens whose KV went from the prefill to the decode worker."""
        return max(0, self.prompt_tokens - self.decode_cached_tokens)

    @property
    def seconds_per_token(self) -> float | None:
        """Seconds a token, after the first; None where that is not known, or there is no second token."""
        if self.first_output is None or self.last_output is None or self.last_output == self.first_output:
            return None
        return (self.last_output - self.first_output) / (self.output_tokens - 1) if self.output_tokens > 1 else None


SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


@dataclass
class Exchange:
    """The notes. Times are monotonic seconds."""

    request_id: str
    started: float = field(default_factory=monotonic)
    route: str = "-"
    module: str = "-"
    version: int | None = None
    """Of the module: which of its weights answered."""
    task: ModuleChoice | None = None
    """How the module was chosen, when the client left that to us."""
    prefill: str | None = None
    decode: str | None = None
    outcomes: tuple[str, str] | None = None
    """Why routing chose these two workers."""
    accepted: float | None = None
    """When its body had been read and checked."""
    key_name: str | None = None
    """Name of the client's key."""
    retries: int = 0
    """Attempts that failed before those of `sequences`."""
    sequences: list[SequenceRecord] = field(default_factory=list)
    """The sequences whose workers have answered."""
    on_gap: Callable[[float], object] | None = None
    """A function that is told the seconds between arrivals of output, for metrics."""
    usage: dict[str, Any] | None = None
    """`usage` of the answer, once it is known."""
    read_tokens: Callable[[], int] | None = None
    """A function that tells how many tokens of its prompts the base has read."""
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
    def used_tokens(self) -> int:
        """Tokens that it has used. Of an answer that broke off: prompts that were read, and one for each event."""
        if self.usage is not None:
            return int(self.usage["prompt_tokens"] + self.usage["completion_tokens"])
        return self.streamed_events + (0 if self.read_tokens is None else self.read_tokens())

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
        self.module, self.version, self.accepted = module.name, module.shown_version, monotonic()

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
            headers[VERSION_HEADER] = str(self.version)
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
