"""Checks on single fields of a request body. Each raises RequestError (400) naming the field; absent fields pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from psserve.errors import RequestError

Body = dict[str, Any]


def invalid(param: str | None, message: str, code: str = "invalid_value") -> RequestError:
    """A 400 about `param`."""
    return RequestError(400, message, param=param, code=code)


def missing(param: str) -> RequestError:
    return invalid(param, f"{param} is required", "missing_required_parameter")


def check_number(body: Body, name: str, allowed: str, is_allowed: Callable[[float], bool]) -> None:
    """A finite int or float (not a bool) for which `is_allowed` holds; `allowed` says it in words."""
    value = body.get(name)
    if value is None:
        return
    if type(value) not in (int, float) or not math.isfinite(value) or not is_allowed(value):
        raise invalid(name, f"{name} must be a number {allowed}")


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


def is_too_deep(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested deeper than `depth` levels, itself included."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(depth):
        children = (child for item in level for child in (item.values() if isinstance(item, dict) else item))
        level = [child for child in children if isinstance(child, (dict, list))]
    return bool(level)
