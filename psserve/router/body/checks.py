"""What a value may be, and the 400 that names the field where it is something else."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psserve.contracts.json_schema import NotKept, Room, kept
from psserve.contracts.limits import RequestLimits
from psserve.contracts.router_config import RouterConfig
from psserve.errors import RequestError

Body = dict[str, Any]
"""The fields of a request."""
INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
_TEXT = re.compile(rb'"[^"]*"')


def invalid(param: str | None, message: str, code: str = "invalid_value") -> RequestError:
    """A 400 about `param`."""
    return RequestError(400, message, param=param, code=code)


def missing(param: str) -> RequestError:
    return invalid(param, f"{param} is required", "missing_required_parameter")


@dataclass(frozen=True, slots=True)
class Check:
    """What a field must be."""

    says: str
    """The same in words, for the docs; `{stops}` and the like stand for the limits of the configuration."""
    run: Callable[[Body, str, RouterConfig], None]
    """Given a body, the name of a field that is in it (not null), and the configuration. Raises RequestError (400)."""


def anything(says: str = "") -> Check:
    return Check(says, lambda body, name, config: None)


def number(allowed: str, is_allowed: Callable[[float], bool]) -> Check:
    """A finite int or float (not a bool) for which `is_allowed` holds; `allowed` says it in words."""

    def run(body: Body, name: str, config: RouterConfig) -> None:
        value = body[name]
        if type(value) not in (int, float) or not math.isfinite(value) or not is_allowed(value):
            raise invalid(name, f"{name} must be a number {allowed}")

    return Check(f"a number {allowed}", run)


def integer(low: int, high: int) -> Check:
    """An int (not a bool) from `low` to `high`, both included."""
    says = f"an integer of {low} or more" if high in (INT32_MAX, INT64_MAX) else f"an integer from {low} to {high}"
    if low < 0:
        says = "an integer"
    return Check(says, lambda body, name, config: check_int(body, name, low, high))


def boolean() -> Check:
    return Check("true or false", lambda body, name, config: check_bool(body, name))


def string(max_length: int) -> Check:
    says = f"a string of at most {max_length} characters"
    return Check(says, lambda body, name, config: check_string(body, name, max_length))


def check_int(body: Body, name: str, low: int, high: int) -> None:
    """An int (not a bool) from `low` to `high`, both included."""
    value = body.get(name)
    if value is None:
        return
    if type(value) is not int or not low <= value <= high:
        raise invalid(name, f"{name} must be an integer from {low} to {high}")


def check_bool(body: Body, name: str) -> None:
    value = body.get(name)
    if value is not None and type(value) is not bool:
        raise invalid(name, f"{name} must be true or false")


def check_string(body: Body, name: str, max_length: int) -> None:
    value = body.get(name)
    if value is not None and (type(value) is not str or len(value) > max_length):
        raise invalid(name, f"{name} must be a string of at most {max_length} characters")


def check_token_ids(ids: Any, param: str, vocab_size: int) -> None:
    """A non-empty list of plain ints in [0, vocab_size). Anything else kills an SGLang scheduler.

    Set and min/max keep this at C speed: a prompt may hold 100,000 ids.
    """
    if not isinstance(ids, list) or not ids:
        raise invalid(param, f"{param} must be a non-empty list of token ids")
    if set(map(type, ids)) != {int} or min(ids) < 0 or max(ids) >= vocab_size:
        raise invalid(param, f"{param} must hold integers from 0 to {vocab_size - 1}")


def check_schema(schema: dict[str, Any], param: str, room: Room | None = None) -> None:
    """A JSON schema that answers can be held to. What only a decode server can tell of it is answered there.

    The caller has checked its size. Schemas of one answer share `room`.
    """
    try:
        kept(schema, room)
    except NotKept as error:
        raise invalid(param, f"{param}: {error}") from None


def is_too_deep(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested deeper than `depth` levels, itself included."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(depth):
        children = (child for item in level for child in (item.values() if isinstance(item, dict) else item))
        level = [child for child in children if isinstance(child, (dict, list))]
    return bool(level)


def check_shape(raw: bytes, limits: RequestLimits) -> None:
    """Raises RequestError (400) when the JSON text `raw`, a body or what is parsed of one later, holds too much.

    That is too many lists and objects, or values in them. Of a text that is no JSON the counts mean nothing; the
    parser refuses it then.
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
