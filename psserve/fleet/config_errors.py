"""What pydantic found wrong with fleet options, as one line: where, which value, what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from psserve.fleet.options import FleetOptions, RouterOptions, flag_of
from psserve.fleet.server_options import DecodeOptions, ModuleOptions, PrefillOptions
from psserve.load_limits import BreakerLimits, QueueLimits
from psserve.request_limits import RequestLimits
from psserve.tables import Table

_TABLES: Mapping[str, type[Table]] = {
    "": FleetOptions,
    "router": RouterOptions,
    "router.queue": QueueLimits,
    "router.breaker": BreakerLimits,
    "router.limits": RequestLimits,
    "prefill": PrefillOptions,
    "decode": DecodeOptions,
    "module": ModuleOptions,
}
_WHAT_TO_DO = {
    "greater_than_equal": "give at least {ge}",
    "greater_than": "give more than {gt}",
    "less_than_equal": "give at most {le}",
    "finite_number": "give a finite number",
    "int_type": "give a whole number",
    "float_type": "give a number",
    "bool_type": "give true or false",
    "string_type": "give a text in quotes",
    "tuple_type": "give a list",
    "dict_type": "give a table",
    "model_type": "give a table",
    "too_short": "give at least one, or leave it out",
    "string_too_short": "it is empty: give one, or leave it out",
    "literal_error": "give {expected}",
}
_LONGEST_VALUE = 80


def said_of_file(error: ValidationError) -> str:
    """The first thing that is wrong with a file, without the file's name."""
    first = error.errors(include_url=False)[0]
    key = _key(first["loc"])
    if first["type"] == "extra_forbidden":
        return _unknown(first["loc"])
    if first["type"] == "value_error":  # ours: says all by itself but for where
        return f"{key}: {_message(first)}" if key else _message(first)
    hint = "; settings of one module go under [module.NAME]" if key == "modules" else ""
    return f"{key} = {_shown(first['input'])}: {_message(first)}{hint}"


def said_of_flags(error: ValidationError, file: Path | None) -> str:
    """The first thing that is wrong once flags are laid over a file that is right by itself."""
    first = error.errors(include_url=False)[0]
    if first["type"] != "value_error":
        value = first["input"]
        return f"{flag_of(_key(first['loc']))} {value if isinstance(value, str) else _shown(value)}: {_message(first)}"
    if file is None or first["loc"][-1:] in (("args",), ("env",)):
        return _message(first)
    return f"{file}, with the flags given: {_message(first)}"


def _key(loc: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


def _message(error: Any) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    what = _WHAT_TO_DO.get(error["type"])
    return what.format(**error.get("ctx", {})) if what else str(error["msg"])


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _unknown(loc: tuple[int | str, ...]) -> str:
    """A key that its table has not: the one meant, the table meant, or all that there are."""
    whole, key = _key(loc[:-1]), str(loc[-1])
    table = whole if whole in _TABLES else str(loc[0])
    known = list(_TABLES[table].model_fields)
    if close := get_close_matches(key, known, n=1):
        advice = f"did you mean {_key((*loc[:-1], close[0]))}?"
    elif homes := [_written(name) for name, other in _TABLES.items() if key in other.model_fields]:
        advice = f"it goes {' or '.join(homes)}"
    else:
        advice = f"there are {', '.join(known)}"
    return f"{_key(loc)}: unknown key; {advice}"


def _written(table: str) -> str:
    return {"": "to the top of the file", "module": "under [module.NAME]"}.get(table, f"under [{table}]")
