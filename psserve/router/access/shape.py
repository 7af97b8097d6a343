"""How much a parser would have to build from a body, told without building it."""

from __future__ import annotations

import re

from psserve.errors import RequestError
from psserve.request_limits import RequestLimits

_TEXT = re.compile(rb'"[^"]*"')


def check_shape(raw: bytes, limits: RequestLimits) -> None:
    """Raises RequestError (400) when the JSON text `raw` has too many lists and objects, or values in them.

    Of a text that is no JSON the counts mean nothing; the parser refuses it then.
    """
    if _within(raw, limits):  # nearly every body; what stands in its strings counts too
        return
    if not _within(_without_strings(raw), limits):
        raise RequestError(
            400,
            f"the body has more than {limits.containers} lists and objects, or {limits.elements} values in them",
            code="invalid_json",
        )


def _within(text: bytes, limits: RequestLimits) -> bool:
    return text.count(b"[") + text.count(b"{") <= limits.containers and text.count(b",") < limits.elements


def _without_strings(raw: bytes) -> bytes:
    """In three passes, each linear: with escapes gone, every quotation mark begins or ends a string."""
    return _TEXT.sub(b"", raw.replace(b"\\\\", b"").replace(b'\\"', b""))
