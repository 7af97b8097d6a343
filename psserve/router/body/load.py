"""From the bytes of a body to its fields: bounded before they are parsed, and without what is refused."""

from __future__ import annotations

import orjson

from psserve.contracts.limits import DEFAULT_LIMITS, RequestLimits
from psserve.router.body.checks import Body, check_shape, invalid, is_too_deep
from psserve.router.body.fields import REFUSED, check_refused


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
