"""What can go wrong with one leg of a pair, and what the client is told of it.

Workers' 4xx messages speak of the client's request and are passed on; whatever stands behind a 5xx stays in our log.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import orjson

from psserve.contracts.router_config import WorkerRole
from psserve.errors import RequestError
from psserve.router.workers.workers import Worker

Reason = Literal[
    "connect",
    "socket",
    "stale",
    "reset",
    "refused",
    "adapter",
    "unhandled",
    "overloaded",
    "error",
    "aborted",
    "malformed",
    "split",
]
"""Why a leg failed: the `reason` label of psserve_leg_failures_total.

connect: no connection; socket: this process could open none, for want of descriptors or ports; stale: a pooled
connection was dead; reset: the connection broke while the leg was in flight; refused: the worker answered 4xx; adapter:
it could not load the module's; unhandled: its code has no answer for something in the body; overloaded: 429 or 503;
error: another bad status; aborted: it gave up after accepting; malformed: its answer is not what the protocol says;
split: the legs disagree about the prompt's length.
"""

RETRY_AFTER_S = 2
"""What clients are told to wait before they ask again."""
OF_ADAPTER = re.compile(
    r"status \d+: (Got LoRA adapter that has never been loaded|Failed to implicitly load LoRA adapter|"
    r"The following requested LoRA adapters are not loaded|LoRA adapter '[^']*' was requested)"
)
"""How refusals begin by which SGLang says that it has not got an adapter. Further on they may quote the client."""
OF_GRAMMAR = re.compile(r"status \d+: (Failed to compile \w+ grammar|Grammar preprocessing timed out)")
"""How refusals begin that are about a grammar: SGLang does not say which field of the request it was made from."""
TOO_LONG = re.compile(r"context length|too long|longer than|token count exceeds|exceeds the max", re.I)
VALIDATION = re.compile(r"'loc': \('body',? ?(?P<where>.*?)\), 'msg': (?P<quote>['\"])(?P<what>.*?)(?P=quote)")
FIELD = re.compile(r"(?!(?:str|int|float|bool|list|dict)\b)[a-z_$][a-z0-9_$]*|[0-9]+")
"""Of a path of pydantic's: a field or an index. The rest names kinds of values, which are the server's."""
UNHANDLED = re.compile(r"\s*(internal server error|grammar accept_token failed)\b[:.]?\s*(?P<what>.*)", re.I | re.S)
"""Of 500s: SGLang's words for an exception over one body, before or beside its computing. Failures of computing and of
transfers read otherwise."""
INSIDE = re.compile(r"[/\\]|bootstrap|Traceback|\bat 0x|\breq(uest)? [0-9a-f]{32}")
"""What a sentence holds that tells of the server's inside."""
PLACE = re.compile(r"\[\d\d:\d\d:\d\d\] /\S+:\d+: ")
"""Where in xgrammar's sources a grammar was found wrong."""
ABOUT = (
    (re.compile(r"Failed to compile (regex|ebnf) grammar"), r"\1"),
    (re.compile(r"\bmin_new_tokens\b"), "min_tokens"),
    (re.compile(r"Tool (\d+) function has invalid 'parameters' schema"), r"tools[\1].function.parameters"),
)
"""Sentences of SGLang's, and the field that each is about."""
MAX_MESSAGE = 1000  # characters of a worker's message that a client gets to see


class LegFailure(RequestError):
    """One worker did not do its part of a request."""

    def __init__(self, worker: Worker, reason: Reason, detail: str, answer: RequestError) -> None:
        super().__init__(
            answer.status,
            str(answer),
            type=answer.type,
            param=answer.param,
            code=answer.code,
            retry_after=answer.retry_after,
        )
        self.worker = worker
        self.role: WorkerRole = worker.config.role
        self.reason: Reason = reason
        self.detail = detail
        """The internal story, for the log only."""


def unavailable(message: str) -> RequestError:
    """A 503: what a module needs is not there now."""
    return RequestError(
        503,
        message,
        type="service_unavailable_error",
        param="model",
        code="module_unavailable",
        retry_after=RETRY_AFTER_S,
    )


def no_connection(worker: Worker, detail: str) -> LegFailure:
    """The worker could not be reached."""
    answer = unavailable(f"the {worker.config.role} server is not available now; retry in a moment")
    return LegFailure(worker, "connect", detail, answer)


def no_socket(worker: Worker, detail: str) -> LegFailure:
    """We could not open a connection: nothing is known of the worker."""
    answer = RequestError(
        503,
        "this server has no connection left; retry in a moment",
        type="service_unavailable_error",
        code="server_is_overloaded",
        retry_after=RETRY_AFTER_S,
    )
    return LegFailure(worker, "socket", detail, answer)


def not_loaded(failure: LegFailure, module: str) -> LegFailure | None:
    """What it means that the leg of an adapter, that of `module`, ended so. None: it is not about the adapter."""
    if failure.reason != "refused" or not OF_ADAPTER.match(failure.detail):
        return None
    answer = unavailable(f"module {module!r} is not available now: its adapter could not be loaded; retry in a moment")
    return LegFailure(failure.worker, "adapter", failure.detail, answer)


def about_grammar(failure: LegFailure, field: str | None) -> LegFailure | None:
    """The failure as one of the grammar in this `field`. None: it is about no grammar, or says a field already."""
    if failure.reason != "refused" or failure.param is not None or not OF_GRAMMAR.match(failure.detail):
        return None
    answer = RequestError(failure.status, str(failure), param=field, code=failure.code)
    return LegFailure(failure.worker, "refused", failure.detail, answer)


def broken(worker: Worker, reason: Reason, detail: str) -> LegFailure:
    """The worker took the leg and failed it."""
    message = f"the {worker.config.role} server failed to complete the request; retry it"
    return LegFailure(worker, reason, detail, RequestError(502, message, type="server_error", code="upstream_error"))


def split_mismatch(worker: Worker, prefill_tokens: int, decode_tokens: int) -> LegFailure:
    """The base's KV does not cover the prompt as the rule says (see rule.py): the answer must not be trusted."""
    detail = f"prefill counted {prefill_tokens} prompt tokens, decode {decode_tokens}"
    message = "the two servers disagree about the prompt; the answer was discarded"
    return LegFailure(worker, "split", detail, RequestError(502, message, type="server_error", code="split_mismatch"))


def bad_status(worker: Worker, status: int, payload: bytes) -> LegFailure:
    """The worker answered the leg with an error status."""
    return reported_error(worker, status, message_in(payload))


def reported_error(worker: Worker, status: int, message: str) -> LegFailure:
    """The worker reported an error of this HTTP status, in an answer or in a stream."""
    detail = f"status {status}: {message}"
    if status in (400, 413, 422):
        return LegFailure(worker, "refused", detail, _clients_fault(message))
    if status in (429, 503):
        answer = RequestError(
            503,
            f"the {worker.config.role} server cannot take the request now; retry in a moment",
            type="service_unavailable_error",
            code="server_is_overloaded",
            retry_after=RETRY_AFTER_S,
        )
        return LegFailure(worker, "overloaded", detail, answer)
    if status == 500 and (found := UNHANDLED.match(message)):
        return LegFailure(worker, "unhandled", detail, _unhandled(found["what"]))
    return broken(worker, "error", detail)


def stream_error(worker: Worker, opening: bytes) -> LegFailure:
    """The worker's stream begins with an error event."""
    event = opening.partition(b"\n\n")[0].removeprefix(b"data: ")
    try:
        error = orjson.loads(event)["error"]
    except orjson.JSONDecodeError:
        return broken(worker, "malformed", "an error event that is not JSON")
    return error_in_stream(worker, error)


def error_in_stream(worker: Worker, error: Any) -> LegFailure:
    """What an error event's `{"message", "code": HTTP status}` means."""
    fields = error if isinstance(error, dict) else {"message": str(error)}
    status = fields.get("code")
    return reported_error(worker, status if type(status) is int else 500, str(fields.get("message")))


def message_in(payload: bytes) -> str:
    """The message of an error body in any of the shapes SGLang uses, or a start of the raw text."""
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return payload[:MAX_MESSAGE].decode("utf-8", "replace")
    return str(_find_message(document))


def _find_message(document: Any) -> Any:
    if isinstance(document, dict):
        for key in ("message", "error", "detail"):
            if document.get(key):
                return _find_message(document[key])
    return document


def _clients_fault(message: str) -> RequestError:
    if TOO_LONG.search(message):
        return RequestError(400, _one_line(message), code="context_length_exceeded")
    if found := VALIDATION.search(message):
        # FastAPI's own text quotes the whole body it was sent, our pairing fields included.
        parts = (part.strip(" '\"") for part in found["where"].split(","))
        where = ".".join(part for part in parts if FIELD.fullmatch(part))
        return RequestError(
            400, _one_line(f"{where or 'body'}: {found['what']}"), param=where or None, code="invalid_value"
        )
    if "'loc'" in message or "bootstrap" in message:
        return RequestError(400, "the server refused the request's fields", code="invalid_value")
    message = PLACE.sub("", message)
    fields = (found.expand(field) for about, field in ABOUT if (found := about.search(message)))
    return RequestError(400, _one_line(message), param=next(fields, None), code="invalid_value")


def _unhandled(what: str) -> RequestError:
    message = "the server cannot handle a field of this request: compare its fields with docs/api.md"
    what = "" if INSIDE.search(what) else _one_line(what)
    return RequestError(400, f"{message} ({what})" if what else message, code="invalid_value")


def _one_line(message: str) -> str:
    return " ".join(message.split())[:MAX_MESSAGE]
