"""What headers say of how a request is to be treated: `x-request-timeout` and `x-smg-priority`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic

from psserve.router.body.checks import Body, invalid

TIMEOUT_HEADER = "x-request-timeout"
PRIORITY_HEADER = "x-smg-priority"
INTEGER = re.compile(r"-?[0-9]{1,10}")
PRIORITIES = range(-(2**31) + 1, 2**31)


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


def deadlines_of(headers: Mapping[str, str], longest_s: float, first_byte_s: float) -> Deadlines:
    """The deadlines of a request that begins now. `headers` must ignore case. Raises RequestError (400)."""
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
