"""What a client may say of how its request is to be treated: `x-request-timeout` and `x-smg-priority`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from psserve.router.body.fields import invalid

TIMEOUT_HEADER = "x-request-timeout"
PRIORITY_HEADER = "x-smg-priority"
INTEGER = re.compile(r"-?[0-9]{1,10}")
PRIORITIES = range(-(2**31) + 1, 2**31)


@dataclass(frozen=True, slots=True)
class Terms:
    """Of one request; its sequences share it."""

    deadline: float
    """Monotonic seconds at which it ends, whatever it has come to."""
    begin_by: float
    """Monotonic seconds at which it ends unless its answer has begun: the prompt's KV is where it belongs, and of a
    stream there is a first event. Not after `deadline`."""
    priority: int = 0
    """Higher goes first, among those of the same module."""

    @classmethod
    def from_now(cls, longest_s: float, first_byte_s: float, priority: int = 0) -> Terms:
        """Of a request that begins now."""
        now = monotonic()
        return cls(now + longest_s, now + min(longest_s, first_byte_s), priority)


def terms_of(headers: Mapping[str, str], body: Mapping[str, Any], longest_s: float, first_byte_s: float) -> Terms:
    """The terms of a checked request that begins now. `headers` must ignore case. Raises RequestError (400)."""
    timeout = min(_timeout(headers.get(TIMEOUT_HEADER)) or longest_s, longest_s)
    return Terms.from_now(timeout, first_byte_s, _priority(headers.get(PRIORITY_HEADER), body.get("priority", 0)))


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


def _priority(text: str | None, otherwise: int) -> int:
    if text is None:
        return otherwise
    if INTEGER.fullmatch(text) is None or int(text) not in PRIORITIES:
        raise invalid(PRIORITY_HEADER, f"{PRIORITY_HEADER} must be a whole number that fits in 32 bits")
    return int(text)
