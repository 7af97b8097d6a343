"""fleet.toml: found, read, overridden by flags, checked."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from psserve.contracts.limits import BreakerLimits, QueueLimits, RequestLimits
from psserve.contracts.tables import SettingsTable
from psserve.errors import UsageError
from psserve.fleet.options.cluster_options import ClusterOptions
from psserve.fleet.options.options import FleetOptions, RouterOptions, flag_of
from psserve.fleet.options.server_options import AdapterOptions, DecodeOptions, ModuleOptions, PrefillOptions

FLEET_FILE = "fleet.toml"
_TABLES: Mapping[str, type[SettingsTable]] = {
    "": FleetOptions,
    "router": RouterOptions,
    "router.queue": QueueLimits,
    "router.breaker": BreakerLimits,
    "router.limits": RequestLimits,
    "prefill": PrefillOptions,
    "decode": DecodeOptions,
    "adapters": AdapterOptions,
    "module": ModuleOptions,
    "cluster": ClusterOptions,
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


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Settings from the command line, which win over the file."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """Key as in fleet.toml ("router.port") -> value."""
    kv_tokens: int | None = None
    """For every server, whatever the file says of its memory."""
    env: Mapping[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()
    """For every server, after those of the file."""


def load_options(zoo: Path, explicit: Path | None, flags: Flags) -> FleetOptions:
    """The options of a fleet: the file `explicit`, else the zoo's fleet.toml if it has one, and the flags over it.

    Raises:
        UsageError: the file cannot be read, or it or a flag says something that makes no sense.
    """
    path = explicit or zoo / FLEET_FILE
    if explicit is None and not path.exists():
        document: dict[str, Any] = {}
        file = None
    else:
        document, file = read_document(path), path
        try:
            validated(document)
        except ValidationError as error:
            raise UsageError(f"{path}: {said_of_file(error)}") from None
    try:
        options = validated(overlaid(document, flags))
    except ValidationError as error:
        raise UsageError(said_of_flags(error, file)) from None
    options.come_from(file, flags.values.keys())
    return options


def read_document(path: Path) -> dict[str, Any]:
    """The TOML file at `path`. Raises UsageError if it cannot be read."""
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}: give --config another file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: not TOML ({error}): correct it") from None


def validated(document: Mapping[str, Any]) -> FleetOptions:
    """The options that a document holds. Raises ValidationError."""
    # As JSON, where a list may stand for a tuple though no other type may stand for another.
    return FleetOptions.model_validate_json(json.dumps(document, default=str))


def overlaid(document: Mapping[str, Any], flags: Flags) -> dict[str, Any]:
    """A copy of the document with what the flags say."""
    result = deepcopy(dict(document))
    for key, value in flags.values.items():
        *tables, name = key.split(".")
        table = result
        for part in tables:
            table = table.setdefault(part, {})
        table[name] = value
    roles = [result.setdefault("prefill", {}), result.setdefault("decode", {})]
    over_decode = [*([result["adapters"]] if "adapters" in result else []), *result.get("module", {}).values()]
    if flags.kv_tokens is not None:
        for table in roles + [table for table in over_decode if table.keys() & {"kv_tokens", "memory_fraction"}]:
            table.pop("memory_fraction", None)
            table["kv_tokens"] = flags.kv_tokens
    for key, more in (("args", list(flags.args)), ("env", dict(flags.env))):
        for table in [*roles, *(table for table in over_decode if key in table)]:
            if more:
                table[key] = _joined(table.get(key), more)
    return result


def _joined(before: Any, more: Any) -> Any:
    if before is None:
        return more
    return [*before, *more] if isinstance(more, list) else {**before, **more}


# --- what is wrong, as the user wrote it


def said_of_file(error: ValidationError) -> str:
    """The first thing that is wrong with a file, without the file's name."""
    first = error.errors(include_url=False)[0]
    key = _key(first["loc"])
    if first["type"] == "extra_forbidden":
        return _unknown(first["loc"])
    if first["type"] == "missing":
        return f"{key}: it is missing: give one"
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
