"""What headers say of how a request is to be served: in which session, until when, and how soon it is its turn.

Mappings of headers must ignore case, as aiohttp's do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic

from psserve.contracts.router_config import RouterConfig
from psserve.router.body.checks import Body, Check, invalid

FORWARDED_HEADERS = ("traceparent", "tracestate")
"""All other headers of the client stop here: SGLang takes orders from some (x-override-*, x-data-parallel-rank)."""
TIMEOUT_HEADER = "x-request-timeout"
PRIORITY_HEADER = "x-smg-priority"
INTEGER = re.compile(r"-?[0-9]{1,10}")
PRIORITIES = range(-(2**31) + 1, 2**31)
SESSION_HEADERS = (
    "x-smg-routing-key",
    "x-session-id",
    "x-dynamo-session-id",
    "x-session-token",
    "x-litellm-session-id",
    "x-claude-code-session-id",
    "x-conversation-id",
    "x-correlation-id",
    "x-session-affinity",
    "x-user-id",
)
"""What clients of SGLang, Dynamo, llm-d, AIBrix, LiteLLM and agents send; the first one present counts."""
SESSION_FIELDS = ("prompt_cache_key", "user")
"""Fields of the body that stand in for a header."""
MAX_SESSION_LENGTH = 256


@dataclass(frozen=True, slots=True)
class Deadlines:
    """When one request must begin its answer and when it must have ended; its sequences share them."""

    end_by: float
    """Monotonic seconds at which it ends, whatever it has come to."""
    begin_by: float
    """Monotonic seconds at which it ends unless its answer has begun: the prompt's KV is where it belongs, and of a
    stream there is a first event. Not after `end_by`."""

    @classmethod
    def from_now(cls, longest_s: float, first_byte_s: float) -> Deadlines:
        """The deadlines of a request that begins now."""
        now = monotonic()
        return cls(now + longest_s, now + min(longest_s, first_byte_s))


@dataclass(frozen=True, slots=True)
class Handling:
    """How the sequences of one request are to be served."""

    forwarded: Mapping[str, str] = field(default_factory=dict)
    """Headers for both workers."""
    session: str | None = None
    """The client's name for the conversation."""
    deadlines: Deadlines | None = None
    """None: the longest that the configuration allows, counted from each sequence's start."""
    priority: int = 0
    """Higher goes first in its module's queue."""


AS_USUAL = Handling()
"""What the router asks for itself."""


def handling_of(headers: Mapping[str, str], body: Body, deadlines: Deadlines) -> Handling:
    """What a client asks for in the headers and the checked body of a request. Raises RequestError (400)."""
    return Handling(
        forwarded={name: headers[name] for name in FORWARDED_HEADERS if name in headers},
        session=session_of(headers, body),
        deadlines=deadlines,
        priority=priority_of(headers, body),
    )


def session_of(headers: Mapping[str, str], body: Body) -> str | None:
    """The client's name for the session, None when it gives none. `headers` must ignore case, as aiohttp's do.

    Names longer than MAX_SESSION_LENGTH are cut: they only steer routing, and are kept in memory.
    """
    given = [headers.get(name) for name in SESSION_HEADERS] + [body.get(name) for name in SESSION_FIELDS]
    return next((name[:MAX_SESSION_LENGTH] for name in given if isinstance(name, str) and name), None)


def deadlines_of(headers: Mapping[str, str], longest_s: float, first_byte_s: float) -> Deadlines:
    """The deadlines of a request that begins now. Raises RequestError (400)."""
    return Deadlines.from_now(min(_timeout(headers.get(TIMEOUT_HEADER)) or longest_s, longest_s), first_byte_s)


def priority_of(headers: Mapping[str, str], body: Body) -> int:
    """What the header says, else the body. Higher goes first in its module's queue. Raises RequestError (400)."""
    text = headers.get(PRIORITY_HEADER)
    if text is None:
        priority: int = body.get("priority", 0)
        return priority
    if INTEGER.fullmatch(text) is None or int(text) not in PRIORITIES:
        raise invalid(PRIORITY_HEADER, f"{PRIORITY_HEADER} must be a whole number that fits in 32 bits")
    return int(text)


def _check_session(body: Body, name: str, config: RouterConfig) -> None:
    if not isinstance(body[name], str):
        raise invalid(name, f"{name} must be a string", "invalid_type")


SESSION = Check("a string: it names a session, as user does", _check_session)


def _timeout(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise invalid(TIMEOUT_HEADER, f"{TIMEOUT_HEADER} must be a number of seconds above 0")
    return seconds
