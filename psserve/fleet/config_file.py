"""fleet.toml: found, read, overridden by flags, checked."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from psserve.errors import UsageError
from psserve.fleet.config_errors import said_of_file, said_of_flags
from psserve.fleet.options import FleetOptions

FILE_NAME = "fleet.toml"


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What the command line says, which wins over the file."""

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
    path = explicit or zoo / FILE_NAME
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
    modules = list(result.get("module", {}).values())
    if flags.kv_tokens is not None:
        for table in [*roles, *modules]:
            table.pop("memory_fraction", None)
            table["kv_tokens"] = flags.kv_tokens
    for key, more in (("args", list(flags.args)), ("env", dict(flags.env))):
        for table in [*roles, *(module for module in modules if key in module)]:
            if more:
                table[key] = _joined(table.get(key), more)
    return result


def _joined(before: Any, more: Any) -> Any:
    if before is None:
        return more
    return [*before, *more] if isinstance(more, list) else {**before, **more}
