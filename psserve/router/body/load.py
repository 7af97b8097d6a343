"""From the bytes of a body to its fields: bounded before they are parsed, and without what is refused."""

from __future__ import annotations

import re

import orjson

from psserve.contracts.limits import DEFAULT_LIMITS, RequestLimits
from psserve.errors import RequestError
from psserve.router.body.checks import Body, invalid, is_too_deep
from psserve.router.body.fields import REFUSED, check_refused

_TEXT = re.compile(rb'"[^"]*"')


def load_body(raw: bytes, limits: RequestLimits = DEFAULT_LIMITS, taken: frozenset[str] = frozenset()) -> Body:
    """The body's fields, without those that ask for nothing. Raises RequestError (400).

    `taken`: fields that the endpoint takes though others refuse them.
    """
    body = {name: value for name, value in _load(raw, limits).items() if value is not None}
    check_refused(body, taken)
    return {name: value for name, value in body.items() if name not in REFUSED or name in taken}


def _load(raw: bytes, limits: RequestLimits) -> Body:
    check_shape(raw, limits)
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise invalid(None, f"the body is not valid JSON: {error}", "invalid_json") from None
    # Counting brackets is cheap, and shows for most bodies that they cannot be too deep.
    if raw.count(b"{") + raw.count(b"[") > limits.depth and is_too_deep(body, limits.depth):
        raise invalid(None, f"the body is nested deeper than {limits.depth} levels", "invalid_json")
    if not isinstance(body, dict):
        raise invalid(None, "the body must be a JSON object", "invalid_type")
    return body


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
    """Drop strings, in three linear passes: with escapes gone, every quotation mark begins or ends a string."""
    return _TEXT.sub(b"", raw.replace(b"\\\\", b"").replace(b'\\"', b""))
